"""Stopping jobs that a task is responsible for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_ray.client import pacing
from airflow_provider_ray.hooks.ray import RayHook

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.errors import RayError
    from airflow_provider_ray.client.jobs.log_relay import Logger

log = logging.getLogger(__name__)

NOT_STOPPED = "has not stopped yet after a stop request; the next attempt checks again"


class Hooks(dict[str, RayHook]):
    """The hooks of an attempt, one per connection, so that what one of its jobs has looked up again holds for all."""

    def __missing__(self, conn_id: str) -> RayHook:
        hook = self[conn_id] = RayHook(conn_id)
        return hook


@dataclass(slots=True)
class StoppableJob:
    """A job with an id, if it has this nonce; another job with the same id is left alone.

    :param hook: the job's cluster. Its connection has been looked up, since a task that is being killed must not send
        requests to Airflow.
    :param submission_id: id of the job.
    :param nonce: text in the metadata of the job.
    :param may_arrive: its submission may still be on its way.
    """

    hook: RayHook
    submission_id: str
    nonce: str
    may_arrive: bool = False

    @classmethod
    def reach(cls, hook: RayHook, submission_id: str, nonce: str) -> StoppableJob | None:
        """The job with its connection looked up; None if the connection no longer exists or cannot work.

        :param hook: the job's cluster, which has accepted the credentials, since it has the job.
        """
        from airflow.providers.common.compat.sdk import AirflowNotFoundException

        from airflow_provider_ray.client.errors import RayConfigError

        try:
            hook.get_config()
        except (AirflowNotFoundException, RayConfigError) as error:
            log.warning("Ray job %s of an earlier attempt is out of reach: %s", submission_id, error)
            return None
        hook.accepted = True
        return cls(hook, submission_id, nonce)

    def to_json(self) -> dict[str, str]:
        """What a trigger, and the attempt after it, must know to reach the job."""
        return {"conn_id": self.hook.conn_id, "submission_id": self.submission_id, "nonce": self.nonce}


def stop_all(
    stops: Sequence[tuple[StoppableJob, float | None]], task_log: Logger, *, looks_up: bool = True
) -> list[JobDetails | RayError | None]:
    """Stop jobs at the same time and log the results; a fault never hides why the jobs are stopped.

    :param stops: the jobs, each with the seconds to wait for its end; None for 15 by default
        (``[ray] stop_timeout``).
    :param task_log: where the results are logged.
    :param looks_up: whether rejected credentials may be looked up again; not in a task that is being killed.
    :returns: each job as last seen, None if the cluster has no such job, or the fault.
    """
    from airflow_provider_ray.client.clusters.asking import Question, ask_all
    from airflow_provider_ray.client.jobs.waiting import stop_job
    from airflow_provider_ray.client.sync import run_sync

    questions = [
        Question(
            job.hook.get_conn(looks_up=looks_up),
            partial(
                stop_job, submission_id=job.submission_id, nonce=job.nonce, within=within, may_arrive=job.may_arrive
            ),
            None if within is None else within + pacing.STOP_GRACE_SECONDS,
        )
        for job, within in stops
    ]
    results = run_sync(lambda: ask_all(questions)) if questions else []
    for (job, _), result in zip(stops, results, strict=True):
        log_stopped(task_log, job.hook.conn_id, job.submission_id, result, may_arrive=job.may_arrive)
    return results


def tell_unwatched(task_log: Logger, conn_id: str, submission_id: str, reason: str) -> None:
    """Say in the task log that nothing watches a job any longer, and what can be done about it.

    :param reason: why it can be neither watched nor stopped.
    """
    task_log.log(
        logging.ERROR,
        "Ray job %s on %s may still be running and is no longer watched: %s. The job was not stopped. Correct the "
        "connection; then either wait for the job with RayJobSensor(conn_id=%r, submission_id=%r), or stop it on the "
        "Ray page, with RayHook(%r).stop_job(%r), or by clearing this task, which then submits a new job",
        submission_id,
        conn_id,
        reason,
        conn_id,
        submission_id,
        conn_id,
        submission_id,
    )


def log_stopped(
    task_log: Logger,
    conn_id: str,
    submission_id: str,
    result: JobDetails | BaseException | None,
    *,
    may_arrive: bool = False,
) -> None:
    """Write the result of a stop request to the task log.

    :param result: the job as last seen, None if the cluster has no such job, or the fault.
    :param may_arrive: the submission of the job may still be on its way.
    """
    if isinstance(result, BaseException):
        said = "Ray job %s on %s could not be stopped and may still be running: %s"
        task_log.log(logging.ERROR, said, submission_id, conn_id, result)
    elif result is None and may_arrive:
        said = "Ray job %s is not on %s, but its submission may still arrive; %s"
        task_log.log(logging.ERROR, said, submission_id, conn_id, "if it does, it runs until the next attempt stops it")
    else:
        status = result.status if result else "the cluster has no such job"
        task_log.log(logging.INFO, "Asked Ray job %s to stop: %s", submission_id, status)
