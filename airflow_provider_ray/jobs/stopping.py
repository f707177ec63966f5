"""The jobs that an attempt of a task has to stop when it is killed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.errors import RayError
    from airflow_provider_ray.hooks.ray import RayHook

# A cluster that accepts connections and says nothing must not hold whoever set a time.
GRACE_SECONDS = 1.0


@dataclass(slots=True)
class Target:
    """A job under an id, if it has this nonce; another one is left alone.

    :param hook: the job's cluster; its connection has been looked up, since a task that is killed must not ask Airflow.
    :param submission_id: id of the job.
    :param nonce: text in the metadata of the job.
    :param may_arrive: a submission of it may still be under way.
    """

    hook: RayHook
    submission_id: str
    nonce: str
    may_arrive: bool = False

    def stop(self, log: Logger | logging.Logger, within: float | None = None) -> None:
        """Stop the job alone; see :func:`stop_all`."""
        stop_all([self], log, within)


def stop_all(
    targets: Sequence[Target], log: Logger | logging.Logger, within: float | None = None
) -> list[JobDetails | RayError | None]:
    """Stop jobs at the same time and say in the task log how that went; no fault hides why they were to be stopped.

    :param log: the task's.
    :param within: seconds to wait for their end, 15 by default.
    :returns: each job as last seen, None where the cluster has no such job, or the fault.
    """
    from airflow_provider_ray.client.clusters.asking import Question, ask_all
    from airflow_provider_ray.client.jobs.waiting import stop_job
    from airflow_provider_ray.client.sync import run_sync

    limit = None if within is None else within + GRACE_SECONDS
    questions = [
        Question(
            target.hook.get_conn(),
            partial(
                stop_job,
                submission_id=target.submission_id,
                nonce=target.nonce,
                within=within,
                may_arrive=target.may_arrive,
            ),
            limit,
        )
        for target in targets
    ]
    results = run_sync(lambda: ask_all(questions)) if questions else []
    for target, result in zip(targets, results, strict=True):
        tell_stopped(log, target.hook.conn_id, target.submission_id, result)
    return results


class TaskLog(Protocol):
    """The logger of a task, of a trigger or of a module."""

    def info(self, event: str, /, *args: object) -> Any: ...

    def error(self, event: str, /, *args: object) -> Any: ...


def tell_stopped(log: TaskLog, conn_id: str, submission_id: str, result: JobDetails | BaseException | None) -> None:
    """Say in the task log what came of stopping a job.

    :param result: the job as last seen, None where the cluster has no such job, or the fault.
    """
    if isinstance(result, BaseException):
        log.error("Ray job %s on %s may still run, it could not be stopped: %s", submission_id, conn_id, result)
    else:
        log.info("Told Ray job %s to stop: %s", submission_id, result.status if result else "it is not there")
