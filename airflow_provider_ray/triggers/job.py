"""Submit a job and wait for it in the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import time
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from airflow.sdk import TaskInstanceState

from airflow_provider_ray.client import pacing
from airflow_provider_ray.compat.triggerer import amask_secret, looked_up, state_of
from airflow_provider_ray.hooks import options
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.jobs import memory
from airflow_provider_ray.jobs.encryption import decrypt
from airflow_provider_ray.jobs.stopping import log_stopped
from airflow_provider_ray.task_log.drain import has_read
from airflow_provider_ray.task_log.position import XComPosition
from airflow_provider_ray.triggers.base import ENDED, FAULT, SUBMITTED, TIMED_OUT, RayTrigger, until

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.job_spec import JobSpec
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.api.ray_client import RayClient
    from airflow_provider_ray.client.errors import RayError
    from airflow_provider_ray.client.jobs.outcome import Outcome


Role = Literal["owner", "submitter", "observer"]


class Ownership(TypedDict):
    """What a task knows about the jobs that it is responsible for.

    :param nonce: text in the metadata of its job.
    :param left_behind: jobs of earlier attempts that may be active, ``{"conn_id", "submission_id", "nonce"}``; a kill
        stops them as well.
    :param cancel_on_kill: False leaves the job alone when a user kills the task.
    """

    nonce: str
    left_behind: Sequence[Mapping[str, str]]
    cancel_on_kill: bool


class Submission(TypedDict):
    """What a trigger submits.

    :param spec: a ``JobSpec`` as :func:`~airflow_provider_ray.jobs.encryption.encrypt` returns it.
    :param queued_at: when the job was handed over for submission, in seconds since the epoch.
    :param room_end_time: when to give up waiting for room, in seconds since the epoch; None for never.
    """

    spec: str
    queued_at: float
    room_end_time: float | None


class RayJobTrigger(RayTrigger):
    """Wait until a job has ended and fire one event: an ``Outcome`` as JSON, with a word for what happened.

    An *owner* submits the job first if it is given a submission, and stops it when its time is up, when it is given up
    as lost and when a user kills the task. A *submitter* fires as soon as it has submitted the job. An *observer*
    waits for a job that something else submitted and never stops it.

    The trigger submits the job, not the worker that defers, because Airflow notifies nothing when a user fails a
    deferred task before a triggerer has picked it up: a job submitted by then would run unwatched. A trigger that
    is restarted finds the job that it submitted before.

    If the connection has ``max_jobs``, the submission waits for room; the time limits of the job start after that. A
    triggerer that stops or hands the trigger over does nothing to the job. The operator draws the conclusion from the
    outcome.

    :param role: owner, submitter or observer.
    :param conn_id: connection of the cluster.
    :param submission_id: the job; None for an observer that waits for the newest job with ``metadata``.
    :param metadata: what the metadata of an observed job must contain.
    :param ownership: what the task knows about its own jobs; None for an observer.
    :param submission: what to submit first; None if the cluster already has the job.
    :param poll_interval: longest time between two checks, in seconds.
    :param end_time: when to give up, in seconds since the epoch; None for never. The wait for room is added to it.
    :param startup_end_time: when to give up on a job that is still PENDING, likewise.
    :param fetch_logs: write the driver log to the task log.
    :param secrets: what to mask in logs, ``{"secrets": [...]}`` as
        :func:`~airflow_provider_ray.jobs.encryption.encrypt` returns it.
    """

    def __init__(
        self,
        *,
        role: Role,
        conn_id: str,
        submission_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        ownership: Ownership | None = None,
        submission: Submission | None = None,
        poll_interval: float = 10,
        end_time: float | None = None,
        startup_end_time: float | None = None,
        fetch_logs: bool = False,
        secrets: str | None = None,
    ) -> None:
        super().__init__()
        self.role = role
        self.conn_id = conn_id
        self.submission_id = submission_id
        self.metadata = metadata
        self.ownership = ownership
        self.submission = submission
        self.poll_interval = poll_interval
        self.end_time = end_time
        self.startup_end_time = startup_end_time
        self.fetch_logs = fetch_logs
        self.secrets = secrets
        self._known_client: RayClient | None = None
        self._submitting = False

    async def on_kill(self) -> None:
        """Stop the task's jobs when a user fails, clears or marks the deferred task.

        The triggerer cancels this coroutine again every second, and Airflow up to 3.3.2 also calls it when the trigger
        merely moves to another triggerer (apache/airflow#73454). So the work is shielded, and a task that is still
        deferred on this very job keeps it.
        """
        if not self._jobs_to_stop():
            return
        work = asyncio.ensure_future(self._stop_unless_wanted())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + pacing.TRIGGER_KILL_SECONDS
        while not work.done() and loop.time() < deadline:
            try:
                await asyncio.wait({work}, timeout=deadline - loop.time())
            except asyncio.CancelledError:
                continue
        if not work.done():
            self.log.error("Ray job %s may still be running: stopping it took too long", self.submission_id)
        elif error := work.exception():
            self.log.error("Ray job %s could not be stopped and may still be running: %s", self.submission_id, error)

    async def _wait(self) -> dict[str, Any]:
        from airflow_provider_ray.client.jobs.outcome import Outcome, watch
        from airflow_provider_ray.client.jobs.records import retention

        ti = self.task_instance
        if self.secrets is not None:
            await looked_up(amask_secret(decrypt(self.secrets)["secrets"]))
        # The operator or sensor has reached the cluster before it deferred.
        async with await self._client(self.conn_id, accepted=True) as client:
            # When the task is killed, Airflow may be too slow to look the connection up again.
            self._known_client = client
            waited = 0.0 if self.submission is None else await self._submit(client, self.submission)
            if self.role == "submitter":
                return self._event(SUBMITTED, Outcome())
            installation = options.installation()
            async with retention(client, installation):
                outcome = await watch(
                    client,
                    submission_id=self.submission_id,
                    metadata=self.metadata,
                    installation=installation,
                    poll_interval=self.poll_interval,
                    timeout=_left(self.end_time, waited),
                    startup_timeout=_left(self.startup_end_time, waited),
                    logger=self.log if self.fetch_logs else None,
                    position=XComPosition(ti) if ti else None,
                    owned=self.role == "owner",
                )
        if outcome.fault:
            return self._failed(outcome.fault)
        return self._event(TIMED_OUT if outcome.is_late else ENDED, outcome)

    def _failed(self, fault: RayError) -> dict[str, Any]:
        from airflow_provider_ray.client.jobs.outcome import Outcome

        return self._event(FAULT, Outcome(fault=fault))

    def _event(self, happened: str, outcome: Outcome) -> dict[str, Any]:
        # The trigger has waited until the driver log was read, but not for lines logged since then.
        self._has_last_lines = self.fetch_logs and not outcome.has_succeeded
        left_behind = self.ownership["left_behind"] if self.ownership else []
        adopted = self.submission is None
        return {
            "event": happened,
            **self._job(),
            "left_behind": list(left_behind),
            "adopted": adopted,
            **outcome.to_json(),
        }

    async def _submit(self, client: RayClient, submission: Submission) -> float:
        """Submit the job, unless the cluster has it already, and return for how many seconds it waited for room."""
        from airflow_provider_ray.client.api.job_spec import JobSpec
        from airflow_provider_ray.client.jobs.admission import place
        from airflow_provider_ray.client.jobs.submission import check_package, post

        spec = JobSpec(**decrypt(submission["spec"]))
        has_limit = client.config.max_jobs is not None
        if not has_limit:
            await self._refuse_if_late(client, spec)
        room = place(
            client,
            spec,
            poll_interval=self.poll_interval,
            timeout=_left(submission["room_end_time"]),
            waits=lambda count: self.log.info("Waiting for room on %s: %s", self.conn_id, count),
        )
        async with room as job:
            if job is None:
                await check_package(client, spec)
                self._submitting = True
                await post(client, spec)
                self._submitting = False
                self.log.info("Submitted Ray job %s", self.submission_id)
        return _waited(submission["queued_at"], job) if has_limit else 0.0

    async def _refuse_if_late(self, client: RayClient, spec: JobSpec) -> None:
        from airflow_provider_ray.client.errors import RayTriggerError
        from airflow_provider_ray.client.jobs.submission import NONCE_KEY, find

        is_late = any(moment is not None and moment <= time() for moment in (self.end_time, self.startup_end_time))
        if is_late and await find(client, spec.submission_id, spec.metadata[NONCE_KEY]) is None:
            reason = "was not submitted: no triggerer picked it up within its timeout"
            raise RayTriggerError(f"Ray job {spec.submission_id!r} {reason}")

    async def _stop_unless_wanted(self) -> None:
        from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

        # For Airflow's API, which may be busy.
        attempts = AsyncRetrying(
            stop=stop_after_delay(pacing.TRIGGER_KILL_SECONDS / 2), wait=wait_fixed(1), reraise=True
        )
        if await attempts(self._is_still_wanted):
            self.log.info("Ray job %s keeps running: its task is still deferred", self.submission_id)
            return
        jobs = self._jobs_to_stop()
        results = await asyncio.gather(*(self._stop(job) for job in jobs), return_exceptions=True)
        for job, left in zip(jobs, results, strict=True):
            log_stopped(
                self.log, job["conn_id"], job["submission_id"], left, may_arrive=self._submitting and self._is_own(job)
            )
        await has_read(0, pacing.LOG_LAST_WORDS_SECONDS)

    def _jobs_to_stop(self) -> Sequence[Mapping[str, Any]]:
        if self.ownership is None:
            return []
        return [*self.ownership["left_behind"], *([self._job()] if self.ownership["cancel_on_kill"] else [])]

    def _job(self) -> Mapping[str, Any]:
        nonce = self.ownership["nonce"] if self.ownership else None
        return {"conn_id": self.conn_id, "submission_id": self.submission_id, "nonce": nonce}

    def _is_own(self, job: Mapping[str, Any]) -> bool:
        return bool(job["submission_id"] == self.submission_id)

    async def _stop(self, job: Mapping[str, Any]) -> JobDetails | None:
        from airflow_provider_ray.client.api.ray_client import RayClient
        from airflow_provider_ray.client.jobs.waiting import stop_job

        is_own = self._is_own(job)
        look_up = RayHook(job["conn_id"]).aget_config
        config = self._known_client.config if is_own and self._known_client else await look_up()
        # A separate client, so that no queue delays a stop.
        async with RayClient(config, look_up, accepted=True) as client:
            return await stop_job(
                client,
                job["submission_id"],
                nonce=job["nonce"],
                within=pacing.TRIGGER_KILL_SECONDS / 2,
                may_arrive=is_own and self._submitting,
            )

    async def _is_still_wanted(self) -> bool:
        """Whether the task is still deferred and this is still its job."""
        from airflow.providers.common.compat.sdk import XCom

        ti = self.task_instance
        if ti is None:
            return False
        state = await state_of(ti)
        current = await XCom.aget_one(
            key=memory.SUBMISSION_ID_KEY,
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            map_index=ti.map_index,
        )
        return state == TaskInstanceState.DEFERRED and current == self.submission_id


def _left(moment: float | None, more: float = 0.0) -> float | None:
    return None if moment is None else until(moment) + more


def _waited(queued_at: float, job: JobDetails | None) -> float:
    """Seconds from the hand-over to the submission: now, or that of a job which an earlier trigger submitted.

    The cluster's clock may be wrong, so the result is limited to what is possible.
    """
    now = time()
    submitted_at = job.start_time_ms / 1000 if job and job.start_time_ms else now
    return min(max(submitted_at, queued_at), now) - queued_at
