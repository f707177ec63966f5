"""Stopping jobs that a task answers for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_ray.client import pacing
from airflow_provider_ray.hooks.ray import RayHook

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.errors import RayError

log = logging.getLogger(__name__)


@dataclass(slots=True)
class StoppableJob:
    """A job under an id, if it has this nonce; another job under the same id is left alone.

    :param hook: the job's cluster. Its connection has been looked up, since a task that is killed must not ask Airflow.
    :param submission_id: id of the job.
    :param nonce: text in the metadata of the job.
    :param may_arrive: its submission may still be on its way.
    """

    hook: RayHook
    submission_id: str
    nonce: str
    may_arrive: bool = False

    @classmethod
    def reach(cls, conn_id: str, submission_id: str, nonce: str) -> StoppableJob | None:
        """The job with its connection looked up; None if the connection does not exist any more or cannot work."""
        from airflow.sdk.exceptions import AirflowNotFoundException

        from airflow_provider_ray.client.errors import RayConfigError

        hook = RayHook(conn_id)
        try:
            hook.get_config()
        except (AirflowNotFoundException, RayConfigError) as error:
            log.warning("Ray job %s of an earlier attempt is out of reach: %s", submission_id, error)
            return None
        return cls(hook, submission_id, nonce)

    def to_json(self) -> dict[str, str]:
        """Arguments for :meth:`reach`."""
        return {"conn_id": self.hook.conn_id, "submission_id": self.submission_id, "nonce": self.nonce}


def stop_all(
    jobs: Sequence[StoppableJob], log: Logger | logging.Logger, within: float | None = None
) -> list[JobDetails | RayError | None]:
    """Stop jobs at the same time and log the results; a fault never hides why the jobs are stopped.

    :param log: the task's.
    :param within: seconds to wait for their end, 15 by default.
    :returns: each job as last seen, None if the cluster has no such job, or the fault.
    """
    from airflow_provider_ray.client.clusters.asking import Question, ask_all
    from airflow_provider_ray.client.jobs.waiting import stop_job
    from airflow_provider_ray.client.sync import run_sync

    limit = None if within is None else within + pacing.STOP_GRACE_SECONDS
    questions = [
        Question(
            job.hook.get_conn(),
            partial(
                stop_job,
                submission_id=job.submission_id,
                nonce=job.nonce,
                within=within,
                may_arrive=job.may_arrive,
            ),
            limit,
        )
        for job in jobs
    ]
    results = run_sync(lambda: ask_all(questions)) if questions else []
    for job, result in zip(jobs, results, strict=True):
        log_stopped(log, job.hook.conn_id, job.submission_id, result)
    return results


class TaskLog(Protocol):
    """The logger of a task, of a trigger or of a module."""

    def info(self, event: str, /, *args: object) -> Any:
        """Log a line at INFO."""

    def error(self, event: str, /, *args: object) -> Any:
        """Log a line at ERROR."""


def log_stopped(log: TaskLog, conn_id: str, submission_id: str, result: JobDetails | BaseException | None) -> None:
    """Write the result of a stop request to the task log.

    :param result: the job as last seen, None if the cluster has no such job, or the fault.
    """
    if isinstance(result, BaseException):
        log.error("Ray job %s on %s could not be stopped and may still be running: %s", submission_id, conn_id, result)
    else:
        status = result.status if result else "the cluster has no such job"
        log.info("Asked Ray job %s to stop: %s", submission_id, status)
