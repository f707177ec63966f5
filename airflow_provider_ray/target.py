"""The job that an attempt of a task has to stop when it is killed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

    from airflow_provider_ray.hooks.ray import RayHook


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
        """Stop the job and say in the task log how that went; a fault does not hide why it was to be stopped.

        :param log: the task's.
        :param within: seconds to wait for the job's end, 15 by default.
        """
        from airflow_provider_ray.client.errors import RayError
        from airflow_provider_ray.client.waiting import stop_job

        try:
            job = self.hook.run(
                lambda client: stop_job(
                    client, self.submission_id, nonce=self.nonce, within=within, may_arrive=self.may_arrive
                )
            )
        except RayError as error:
            log.error("Ray job %s may still run, it could not be stopped: %s", self.submission_id, error)
        else:
            log.info("Told Ray job %s to stop: %s", self.submission_id, job.status if job else "it is not there")
