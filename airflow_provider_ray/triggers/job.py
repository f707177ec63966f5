"""Submit a job and wait for it in the triggerer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskInstanceState
from airflow.sdk.log import amask_secret
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.jobs import memory
from airflow_provider_ray.jobs.encryption import unseal
from airflow_provider_ray.jobs.stopping import tell_stopped
from airflow_provider_ray.task_log.drain import CountedLogger, pipe
from airflow_provider_ray.task_log.position import XComBookmark

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.job_spec import JobSpec
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.api.ray_client import RayClient
    from airflow_provider_ray.client.config import ClusterConfig
    from airflow_provider_ray.client.jobs.outcome import Outcome

log = logging.getLogger(__name__)

# Airflow 3.3.2 can fail a task whose trigger fires before the scheduler has seen the worker leave.
EARLIEST_EVENT_SECONDS = 2.0
# Airflow gives on_kill 30 seconds ([triggerer] on_kill_timeout); half of ours is for asking Airflow, half for Ray.
KILL_SECONDS = 20.0


class RayJobTrigger(BaseTrigger):
    """Submit a job if asked to, wait until it has ended and fire one event, an ``Outcome`` as JSON.

    The trigger submits, and not the worker that defers, because Airflow tells nobody when a user fails a deferred
    task before a triggerer has taken it up: a job submitted by then would run unwatched. A trigger that starts anew
    finds the job that it submitted before.

    Where the connection has ``max_jobs``, the submission waits for room; the times for the job begin after that.

    It watches and relays the driver's log; the verdict on the outcome is the operator's. A triggerer that stops or
    hands the trigger on does nothing to the job.

    :param conn_id: connection of the cluster.
    :param submission_id: the job; None to wait for the newest job with ``metadata``.
    :param nonce: text in the metadata of a job that is ours, which is stopped when the time is up, when it is given up
        as lost and when a user kills the task; None for a job of somebody else, which is left alone.
    :param sealed_spec: what to submit first, a ``JobSpec`` under
        :func:`~airflow_provider_ray.jobs.encryption.seal`; None when the job is there already.
    :param submit_only: fire as soon as the job is submitted, with an outcome that knows neither job nor fault.
    :param queued_at: when the job was handed over for submission, in seconds since the epoch.
    :param room_end_time: when to give up waiting for room, in seconds since the epoch; None for never.
    :param others: jobs of earlier attempts that may be active, ``{"conn_id", "submission_id", "nonce"}``; a kill stops
        them as well.
    :param metadata: what the job's metadata must contain.
    :param poll_interval: longest time between two looks, in seconds.
    :param end_time: when to give up, in seconds since the epoch; None for never. The wait for room is added to it.
    :param startup_end_time: when a job that is still PENDING is given up, likewise.
    :param fetch_logs: write the driver's log to the task log.
    :param cancel_on_kill: False leaves the job alone when a user kills the task.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        submission_id: str | None = None,
        nonce: str | None = None,
        sealed_spec: str | None = None,
        submit_only: bool = False,
        queued_at: float | None = None,
        room_end_time: float | None = None,
        others: Sequence[Mapping[str, str]] = (),
        metadata: Mapping[str, str] | None = None,
        poll_interval: float = 10,
        end_time: float | None = None,
        startup_end_time: float | None = None,
        fetch_logs: bool = False,
        cancel_on_kill: bool = True,
    ) -> None:
        super().__init__()
        self.conn_id = conn_id
        self.submission_id = submission_id
        self.nonce = nonce
        self.sealed_spec = sealed_spec
        self.submit_only = submit_only
        self.queued_at = queued_at
        self.room_end_time = room_end_time
        self.others = list(others)
        self.metadata = metadata
        self.poll_interval = poll_interval
        self.end_time = end_time
        self.startup_end_time = startup_end_time
        self.fetch_logs = fetch_logs
        self.cancel_on_kill = cancel_on_kill
        self._config: ClusterConfig | None = None
        self._submitting = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "airflow_provider_ray.triggers.job.RayJobTrigger",
            {
                "conn_id": self.conn_id,
                "submission_id": self.submission_id,
                "nonce": self.nonce,
                "sealed_spec": self.sealed_spec,
                "submit_only": self.submit_only,
                "queued_at": self.queued_at,
                "room_end_time": self.room_end_time,
                "others": self.others,
                "metadata": self.metadata,
                "poll_interval": self.poll_interval,
                "end_time": self.end_time,
                "startup_end_time": self.startup_end_time,
                "fetch_logs": self.fetch_logs,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    @property
    def _task_log(self) -> CountedLogger:
        return CountedLogger(self.log)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from airflow_provider_ray.client.errors import RayError, RayTriggerError
        from airflow_provider_ray.client.jobs.outcome import Outcome

        not_before = monotonic() + EARLIEST_EVENT_SECONDS
        with pipe.life():
            try:
                outcome = await self._watch()
            except RayError as fault:
                outcome = Outcome(fault=fault)
            except Exception as error:
                # A trigger that raises ends the task without its operator, which alone can see to the job.
                log.exception("Ray job %s can no longer be watched", self.submission_id)
                outcome = Outcome(fault=RayTriggerError(f"{type(error).__name__}: {error}"))
            if self.fetch_logs and self.task_instance and not outcome.has_succeeded:
                # What has been said of it since the end of the driver's log.
                await XComBookmark(self.task_instance).settle(at_most=0)
            await asyncio.sleep(not_before - monotonic())
            event = {**self._job(), "others": self.others, "adopted": self.sealed_spec is None, **outcome.to_json()}
            yield TriggerEvent(event)
            pipe.count(repr(event))

    async def on_kill(self) -> None:
        """Stop the task's jobs when a user fails, clears or marks the deferred task.

        The triggerer cancels this coroutine again every second, and Airflow up to 3.3.2 also calls it when the trigger
        merely moves to another triggerer (apache/airflow#73454); so the work is shielded, and a task that is still
        deferred on this very job keeps it.
        """
        if self.nonce is None or not self._jobs_to_stop():
            return
        work = asyncio.ensure_future(self._stop_unless_wanted())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + KILL_SECONDS
        while not work.done() and loop.time() < deadline:
            try:
                await asyncio.wait({work}, timeout=deadline - loop.time())
            except asyncio.CancelledError:
                continue
        if not work.done():
            self._task_log.error("Ray job %s may still run: stopping it took too long", self.submission_id)
        elif error := work.exception():
            self._task_log.error("Ray job %s may still run, it could not be stopped: %s", self.submission_id, error)

    async def _watch(self) -> Outcome:
        from airflow_provider_ray.client.jobs.outcome import Outcome, watch
        from airflow_provider_ray.client.sharing.shared_client import shared_client

        # Airflow's look-up would swallow the message of a cancellation, which alone tells Airflow to call on_kill.
        self._config = await asyncio.shield(asyncio.ensure_future(RayHook(self.conn_id).aget_config()))
        ti = self.task_instance
        async with shared_client(self._config) as client:
            waited = await self._submit(client, self.sealed_spec) if self.sealed_spec is not None else 0.0
            if self.submit_only:
                return Outcome()
            return await watch(
                client,
                submission_id=self.submission_id,
                metadata=self.metadata,
                poll_interval=self.poll_interval,
                timeout=_until(self.end_time, waited),
                startup_timeout=_until(self.startup_end_time, waited),
                logger=self._task_log if self.fetch_logs else None,
                bookmark=XComBookmark(ti) if ti else None,
                owned=self.nonce is not None,
            )

    async def _submit(self, client: RayClient, sealed_spec: str) -> float:
        """Submit the job, unless it is there already, and return for how many seconds it waited for room."""
        from airflow_provider_ray.client.api.job_spec import JobSpec
        from airflow_provider_ray.client.jobs.admission import place
        from airflow_provider_ray.client.jobs.submission import post

        spec = JobSpec(**unseal(sealed_spec))
        await amask_secret(dict(spec.runtime_env.get("env_vars") or {}))
        has_limit = client.config.max_jobs is not None
        if not has_limit:
            await self._refuse_if_late(client, spec)
        room = place(
            client,
            spec,
            poll_interval=self.poll_interval,
            timeout=_until(self.room_end_time),
            waits=lambda count: self._task_log.info("Waiting for room on %s: %s", self.conn_id, count),
        )
        async with room as job:
            if job is None:
                self._submitting = True
                await post(client, spec)
                self._submitting = False
                self._task_log.info("Submitted Ray job %s", self.submission_id)
        return self._waited_until(job) if has_limit else 0.0

    async def _refuse_if_late(self, client: RayClient, spec: JobSpec) -> None:
        from airflow_provider_ray.client.errors import RayTriggerError
        from airflow_provider_ray.client.jobs.submission import find

        is_late = any(moment is not None and moment <= time() for moment in (self.end_time, self.startup_end_time))
        if is_late and await find(client, spec.submission_id, str(self.nonce)) is None:
            reason = "was not submitted: no triggerer took it up within its timeout"
            raise RayTriggerError(f"Ray job {spec.submission_id!r} {reason}")

    def _waited_until(self, job: JobDetails | None) -> float:
        """Seconds from the hand-over to the submission: now, or that of a job which an earlier trigger submitted.

        The cluster's clock may be wrong; no more is believed than could be true.
        """
        now = time()
        queued_at = now if self.queued_at is None else self.queued_at
        submitted_at = job.start_time_ms / 1000 if job and job.start_time_ms else now
        return min(max(submitted_at, queued_at), now) - queued_at

    async def _stop_unless_wanted(self) -> None:
        from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

        # Airflow's API, which may be busy.
        attempts = AsyncRetrying(stop=stop_after_delay(KILL_SECONDS / 2), wait=wait_fixed(1), reraise=True)
        if await attempts(self._is_still_wanted):
            self._task_log.info("Ray job %s goes on: its task is still deferred", self.submission_id)
            return
        jobs = self._jobs_to_stop()
        results = await asyncio.gather(*(self._stop(job) for job in jobs), return_exceptions=True)
        for job, left in zip(jobs, results, strict=True):
            tell_stopped(self._task_log, job["conn_id"], job["submission_id"], left)

    def _jobs_to_stop(self) -> Sequence[Mapping[str, Any]]:
        return [*self.others, *([self._job()] if self.cancel_on_kill else [])]

    def _job(self) -> Mapping[str, Any]:
        return {"conn_id": self.conn_id, "submission_id": self.submission_id, "nonce": self.nonce}

    async def _stop(self, job: Mapping[str, Any]) -> JobDetails | None:
        from airflow_provider_ray.client.api.ray_client import RayClient
        from airflow_provider_ray.client.jobs.waiting import stop_job

        is_mine = job["submission_id"] == self.submission_id
        config = self._config if is_mine else None
        async with RayClient(config or await RayHook(job["conn_id"]).aget_config()) as client:
            return await stop_job(
                client,
                job["submission_id"],
                nonce=job["nonce"],
                within=KILL_SECONDS / 2,
                may_arrive=is_mine and self._submitting,
            )

    async def _is_still_wanted(self) -> bool:
        """Whether the task is still deferred and this is still its job."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
        from airflow.sdk.execution_time.xcom import XCom
        from asgiref.sync import sync_to_async

        ti = self.task_instance
        if ti is None:
            return False
        states = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        current = await XCom.aget_one(
            key=memory.SUBMISSION_ID_KEY,
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            map_index=ti.map_index,
        )
        key = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
        state = (states.get(ti.run_id) or {}).get(key)
        return state == TaskInstanceState.DEFERRED and current == self.submission_id


def _until(moment: float | None, more: float = 0.0) -> float | None:
    return None if moment is None else moment + more - time()
