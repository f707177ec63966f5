"""How waiting for a job ended, and the one place where that becomes a result or an error.

The blocking and the deferred path both end here: an :class:`Outcome` is either made in the worker or comes from a
trigger as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_ray.client.api.models import JobDetails
from airflow_provider_ray.client.api.retry import retrying
from airflow_provider_ray.client.credentials import without_secrets
from airflow_provider_ray.client.errors import RayError, RayJobError, RayJobFailed, RayJobStopped, RayJobTimeout
from airflow_provider_ray.client.jobs.driver_log import DriverLog, Position, last_lines
from airflow_provider_ray.client.jobs.submission import get_for_certain
from airflow_provider_ray.client.jobs.waiting import find_job, wait_for_job, wait_for_submission
from airflow_provider_ray.client.states import FAILED, PENDING, STOPPED, SUCCEEDED, is_terminal

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.ray_client import RayClient
    from airflow_provider_ray.client.config import ClusterConfig
    from airflow_provider_ray.client.jobs.log_relay import Logger


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is known when waiting is over.

    :param job: the job as last seen; not terminal when the time was up.
    :param log_tail: last lines of the driver log, when the job did not succeed.
    :param fault: why the job could not be watched to its end.
    """

    job: JobDetails | None = None
    log_tail: Sequence[str] = ()
    fault: RayError | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for a trigger's event."""
        return {
            "job": self.job and self.job.to_json(),
            "log_tail": list(self.log_tail),
            "fault": self.fault and self.fault.to_json(),
        }

    @classmethod
    def from_json(cls, event: Mapping[str, Any]) -> Outcome:
        """Build the value from a trigger's event."""
        job, fault = event.get("job"), event.get("fault")
        return cls(
            job=JobDetails.from_json(job) if job else None,
            log_tail=event.get("log_tail") or (),
            fault=RayError.from_json(fault) if fault else None,
        )

    @property
    def is_late(self) -> bool:
        """Whether the time was up before the job had ended."""
        return self.job is not None and not is_terminal(self.job.status)

    @property
    def has_succeeded(self) -> bool:
        """Whether the job ended as it should."""
        return self.job is not None and self.job.status == SUCCEEDED

    @property
    def was_stopped(self) -> bool:
        """Whether the job was stopped."""
        return self.job is not None and self.job.status == STOPPED

    def result(self, conn_id: str, config: ClusterConfig) -> JobDetails:
        """The job, if it succeeded.

        :param conn_id: connection of the cluster, for the error.
        :param config: the cluster, for the address of the job's page in the error.
        :raises RayJobError: its subclass says whether the job failed, was stopped or ran out of time.
        :raises RayError: the fault that ended the watch.
        """
        if self.fault is not None:
            raise self.fault
        if self.job is None:
            raise RayError("The trigger's event holds neither a job nor a fault.")
        if self.job.status == SUCCEEDED:
            return self.job
        verdicts: Mapping[str, tuple[type[RayJobError], str]] = {
            FAILED: (RayJobFailed, "failed"),
            STOPPED: (RayJobStopped, "was stopped"),
            PENDING: (RayJobTimeout, "did not start in time; Ray gives it up after 900 s unless configured otherwise"),
        }
        kind, what = verdicts.get(self.job.status, (RayJobTimeout, "did not end in time"))
        url = config.job_url(str(self.job.submission_id))
        raise kind(conn_id, self.job, what, self.log_tail, url)


async def watch(
    client: RayClient,
    *,
    submission_id: str | None = None,
    metadata: Mapping[str, str] | None = None,
    installation: str | None = None,
    poll_interval: float,
    timeout: float | None,
    startup_timeout: float | None = None,
    logger: Logger | None = None,
    position: Position | None = None,
    owned: bool = False,
) -> Outcome:
    """Wait for a job to end, relay its log line by line, and return how it ended.

    A :class:`RayError` is not raised; it is the outcome's ``fault``.

    :param submission_id: the job; None to wait for the newest job with ``metadata`` first.
    :param metadata: what the job's metadata must contain.
    :param installation: the Airflow that looks for it, see :func:`~airflow_provider_ray.client.jobs.waiting.find_job`.
    :param poll_interval: longest time between two polls, in seconds.
    :param timeout: seconds from now, None for no limit.
    :param startup_timeout: seconds from now within which the job must leave PENDING, None for no limit.
    :param logger: gets the driver's lines; None leaves the log alone.
    :param position: stores the position in the log for a process that resumes the watch.
    :param owned: the caller submitted the job: it is known to exist, and it is stopped when the time is up or it is
        given up as lost.
    """
    try:
        if submission_id is None:
            submission_id, timeout = await wait_for_submission(
                client, metadata or {}, installation, poll_interval=poll_interval, timeout=timeout
            )
        job = await wait_for_job(
            client,
            submission_id,
            poll_interval=poll_interval,
            timeout=timeout,
            startup_timeout=startup_timeout,
            log=DriverLog(client, logger, position) if logger else None,
            owned=owned,
        )
    except RayError as fault:
        return Outcome(fault=fault)
    return await _ended(client, job)


async def look(
    client: RayClient,
    *,
    submission_id: str | None = None,
    metadata: Mapping[str, str] | None = None,
    installation: str | None = None,
    logger: Logger | None = None,
    fault_budget: float | None = None,
) -> Outcome | None:
    """Check a job once; None while it has not ended or, with ``metadata``, has not appeared. See :func:`watch`.

    :param fault_budget: seconds for which a transient fault is retried, default ``[ray] fault_budget``; then it is the
        outcome.
    """
    try:
        if submission_id is not None:
            job: JobDetails | None = await get_for_certain(client, submission_id, budget=fault_budget)
        else:
            job = await retrying(lambda: find_job(client, metadata or {}, installation), fault_budget)
    except RayError as fault:
        return Outcome(fault=fault)
    client.accepted = True
    if job is None or not is_terminal(job.status):
        return None
    if logger:
        await DriverLog(client, logger).deliver(job, final=True)
    return await _ended(client, job)


async def _ended(client: RayClient, job: JobDetails) -> Outcome:
    """The outcome, without secrets: it is shown in many places, and pip repeats URLs with the passwords in them."""
    log_tail = () if job.status == SUCCEEDED else await last_lines(client, job)
    said = msgspec.structs.replace(job, message=without_secrets(job.message))
    return Outcome(job=said, log_tail=without_secrets(log_tail))
