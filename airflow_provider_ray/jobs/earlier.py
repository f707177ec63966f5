"""The jobs of earlier attempts: looking them up, and taking the steps that the decision about them names."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_ray.client import pacing
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.jobs.decision import (
    Adopt,
    CurrentAttempt,
    GiveUp,
    SeenJob,
    StopFirst,
    Submit,
    decide,
    resubmission,
)
from airflow_provider_ray.jobs.stopping import NOT_STOPPED, StoppableJob, stop_all

if TYPE_CHECKING:
    from airflow_provider_ray.client.errors import RayError
    from airflow_provider_ray.jobs.memory import TaskJob

log = logging.getLogger(__name__)


class EarlierJobs:
    """Jobs that earlier attempts of a task have remembered.

    A job whose connection no longer exists, or cannot work, is out of reach: it stays remembered and does not influence
    the decision.

    :param remembered: the jobs, the newest first.
    """

    def __init__(self, remembered: Sequence[TaskJob]) -> None:
        found = {job: StoppableJob.reach(job.conn_id, job.submission_id, job.nonce) for job in remembered}
        self._reached = {job: stoppable for job, stoppable in found.items() if stoppable is not None}
        self.out_of_reach = [job for job, stoppable in found.items() if stoppable is None]
        self._seen: Sequence[SeenJob] = ()

    @property
    def reached(self) -> list[StoppableJob]:
        """What stops the jobs, the newest first."""
        return list(self._reached.values())

    @property
    def newest(self) -> StoppableJob | None:
        """What stops the newest job that was reached."""
        return next(iter(self.reached), None)

    @property
    def exist(self) -> bool:
        """Whether there are any."""
        return bool(self._reached or self.out_of_reach)

    def find(self, job: TaskJob) -> StoppableJob | None:
        """What stops a job, if it is one of these and was reached."""
        return self._reached.get(job)

    def check_connections(self, clusters: Collection[str]) -> None:
        """Refuse to decide while a connection that this attempt uses cannot be looked up.

        A failing secrets backend looks as if there were no such connection; no job must be forgotten because of that.
        """
        for job in self.out_of_reach:
            if job.conn_id in clusters:
                RayHook(job.conn_id).get_config()

    def look_and_stop(self, current: CurrentAttempt) -> Adopt | Submit:
        """Look the jobs up, stop those that have to be stopped, and return how the attempt continues.

        :raises RayRequestError: when the newest job cannot be looked up.
        :raises RayJobStopping: when a job that has to end before another is submitted has not stopped yet.
        """
        newest = next(iter(self._reached), None)
        # Only the newest job of a task with one cluster is worth a long wait.
        patient = newest if newest and len(current.clusters) == 1 and not newest.lost else None
        self._seen = self._look(patient)
        if self._is_rejected and patient is None:
            # No other cluster may take over a job that is running.
            self._seen = self._look(newest)
        while isinstance(step := decide(self._seen, current), StopFirst):
            self._stop(step)
        if isinstance(step, GiveUp):
            raise step.job.fault or _still_stopping(step.job)
        return step

    def resubmission(self, conn_id: str, current: CurrentAttempt) -> TaskJob | None:
        """See :func:`~airflow_provider_ray.jobs.decision.resubmission`."""
        return resubmission(conn_id, self._seen, current)

    def left_behind(self, own: TaskJob | None, current: CurrentAttempt) -> list[TaskJob]:
        """Jobs other than the attempt's own that are or may become active, the newest first."""
        return [each.job for each in self._seen if each.job is not own and current.can_run(each)]

    @property
    def _is_rejected(self) -> bool:
        """Whether the newest job, which is not lost, could not be looked up because of credentials."""
        from airflow_provider_ray.client.errors import RayAuthError

        newest = next(iter(self._seen), None)
        return newest is not None and not newest.job.lost and isinstance(newest.fault, RayAuthError)

    def _look(self, patient: TaskJob | None) -> list[SeenJob]:
        """Query all clusters at the same time.

        :param patient: the job whose cluster gets the time that faults are sat out for; the others must answer soon.
        """
        from airflow_provider_ray.client.clusters.asking import Question, ask_all
        from airflow_provider_ray.client.errors import RayError
        from airflow_provider_ray.client.jobs.submission import find
        from airflow_provider_ray.client.sync import run_sync

        questions = []
        for job, stoppable in self._reached.items():
            client = stoppable.hook.get_conn()
            client.accepted = job is patient
            ask = partial(find, submission_id=job.submission_id, nonce=job.nonce)
            questions.append(Question(client, ask, None if job is patient else pacing.EARLIER_JOBS_SECONDS))
        answers = run_sync(lambda: ask_all(questions)) if questions else []
        seen = []
        for job, answer in zip(self._reached, answers, strict=True):
            if isinstance(answer, RayError):
                log.warning("Ray job %s on %s cannot be looked up: %s", job.submission_id, job.conn_id, answer)
                seen.append(SeenJob(job=job, fault=answer))
            else:
                seen.append(SeenJob(job=job, known=answer))
        return seen

    def _stop(self, step: StopFirst) -> None:
        """Ask jobs to stop and note how that went; the end of a lost one might never come."""
        for each in step.jobs:
            log.info("Stopping Ray job %s of an earlier attempt", each.job.submission_id)
        stops = [
            (self._reached[each.job], None if step.wait and not each.job.lost else pacing.LOST_STOP_SECONDS)
            for each in step.jobs
        ]
        results = dict(zip((each.job for each in step.jobs), stop_all(stops, log), strict=True))
        self._seen = [_after_stop(each, results[each.job]) if each.job in results else each for each in self._seen]


def _after_stop(seen: SeenJob, result: object) -> SeenJob:
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.errors import RayError

    fault = result if isinstance(result, RayError) else None
    known = result if isinstance(result, JobDetails) else (seen.known if fault else None)
    return replace(seen, known=known, fault=fault, asked_to_stop=True)


def _still_stopping(seen: SeenJob) -> RayError:
    from airflow_provider_ray.client.errors import RayJobStopping

    if seen.known is None:
        raise ValueError(f"nothing is known of Ray job {seen.job.submission_id!r}")
    return RayJobStopping(seen.job.conn_id, seen.known, NOT_STOPPED)
