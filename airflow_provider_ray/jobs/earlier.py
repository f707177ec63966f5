"""The jobs of earlier attempts: looking them up, and taking the steps that the decision about them names."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_ray.client import pacing
from airflow_provider_ray.jobs.decision import (
    Adopt,
    CurrentAttempt,
    FoundJob,
    GiveUp,
    Search,
    SeenJob,
    StopFirst,
    Submit,
    decide,
    join,
    resubmission,
)
from airflow_provider_ray.jobs.memory import choice_of
from airflow_provider_ray.jobs.stopping import NOT_STOPPED, Hooks, StoppableJob, stop_all

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.errors import RayError
    from airflow_provider_ray.jobs.memory import TaskJob

log = logging.getLogger(__name__)


class EarlierJobs:
    """Jobs of earlier attempts of a task: those that it remembers, and those that are found on the clusters.

    A job whose connection no longer exists, or cannot work, is out of reach: it stays remembered and does not influence
    the decision.

    :param remembered: the jobs, the newest first.
    :param stamps: what the metadata of the task's jobs says about it.
    :param hooks: those of the attempt.
    """

    def __init__(self, remembered: Sequence[TaskJob], stamps: Mapping[str, str], hooks: Hooks) -> None:
        found = {job: StoppableJob.reach(hooks[job.conn_id], job.submission_id, job.nonce) for job in remembered}
        self._reached = {job: stoppable for job, stoppable in found.items() if stoppable is not None}
        self.out_of_reach = [job for job, stoppable in found.items() if stoppable is None]
        self.unsearched: Mapping[str, RayError] = {}
        self._seen: Sequence[SeenJob] = ()
        self._stamps, self._hooks = stamps, hooks
        self._sessions: dict[str, str] = {}

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
                self._hooks[job.conn_id].get_config()

    def look_and_stop(self, current: CurrentAttempt) -> Adopt | Submit:
        """Look the jobs up, stop those that have to be stopped, and return how the attempt continues.

        :raises RayRequestError: when the newest job cannot be looked up, or nothing is known of any job.
        :raises RayJobStopping: when a job that has to end before another is submitted has not stopped yet.
        """
        newest = next(iter(self._reached), None)
        # Only the newest job of a task with one cluster is worth a long wait.
        patient = newest if newest and len(current.clusters) == 1 and not newest.lost else None
        self._seen = self._look(patient)
        if self._is_rejected and patient is None:
            # No other cluster may take over a job that is running.
            self._seen = self._look(newest)
        unsearched: Mapping[str, RayError] | None = None
        while True:
            step = decide(self._seen, current, unsearched)
            if isinstance(step, StopFirst):
                self._stop(step)
            elif isinstance(step, Search):
                # With nothing to go by, the answer of a task's only cluster is worth a long wait.
                is_patient = not self._seen and not current.is_first and len(current.clusters) == 1
                unsearched = self.search(current, is_patient=is_patient)
                if self._may_miss_a_job(current):
                    unsearched = self.search(current, is_patient=True)
            elif isinstance(step, GiveUp):
                raise _fault(step)
            else:
                return step

    def search(self, current: CurrentAttempt, *, is_patient: bool = False) -> Mapping[str, RayError]:
        """Search all clusters at the same time for active jobs that the task does not remember.

        :param is_patient: wait for ``[ray] fault_budget`` while a cluster does not answer.
        :returns: clusters that could not be searched, and why.
        """
        from airflow_provider_ray.client.clusters.asking import Question, ask_all
        from airflow_provider_ray.client.errors import RayError
        from airflow_provider_ray.client.jobs.search import search
        from airflow_provider_ray.client.sync import run_sync

        # A first attempt hardly ever has predecessors, so it waits for a slow list only briefly.
        shortly = pacing.FIRST_SEARCH_SECONDS if current.is_first else pacing.EARLIER_JOBS_SECONDS
        budget, within = (None, None) if is_patient else (pacing.HICCUP_SECONDS, shortly)
        ask = partial(search, metadata=self._stamps, with_session=len(current.clusters) > 1, budget=budget)
        questions = [Question(self._hooks[conn_id].get_conn(), ask, within) for conn_id in current.clusters]
        for each in questions:
            # An earlier attempt, whose jobs are worth the wait, has reached the cluster.
            each.client.accepted = is_patient
        answers = dict(zip(current.clusters, run_sync(lambda: ask_all(questions)), strict=True))
        self.unsearched = {conn_id: each for conn_id, each in answers.items() if isinstance(each, RayError)}
        for conn_id, fault in self.unsearched.items():
            log.warning("Cannot search %s for active jobs of this task: %s", conn_id, fault)
        found = {conn_id: each for conn_id, each in answers.items() if not isinstance(each, RayError)}
        self._sessions = {conn_id: each.session for conn_id, each in found.items() if each.session}
        self._take_other_connections()
        self._join([_found(conn_id, job) for conn_id, each in found.items() for job in each.jobs], current)
        return self.unsearched

    def _may_miss_a_job(self, current: CurrentAttempt) -> bool:
        """Whether nothing is known of any job, and a cluster that may be running one rejected the credentials."""
        from airflow_provider_ray.client.errors import RayAuthError

        is_rejected = any(isinstance(fault, RayAuthError) for fault in self.unsearched.values())
        return is_rejected and not self._seen and not current.is_first

    def session_of(self, conn_id: str) -> str | None:
        """Session of a cluster that was searched, if the task has several connections."""
        return self._sessions.get(conn_id)

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

        :param patient: the job whose cluster gets all of ``[ray] fault_budget``; the others must answer soon.
        """
        return self._look_up({job: None if job is patient else pacing.EARLIER_JOBS_SECONDS for job in self._reached})

    def _look_up(self, jobs: Mapping[TaskJob, float | None]) -> list[SeenJob]:
        """Look jobs up on their clusters, each within some seconds; None means ``[ray] fault_budget``."""
        from airflow_provider_ray.client.clusters.asking import Question, ask_all
        from airflow_provider_ray.client.errors import RayError
        from airflow_provider_ray.client.jobs.submission import look_up
        from airflow_provider_ray.client.sync import run_sync

        questions = []
        for job, within in jobs.items():
            client = self._reached[job].hook.get_conn()
            client.accepted = within is None
            questions.append(Question(client, partial(look_up, submission_id=job.submission_id), within))
        answers = run_sync(lambda: ask_all(questions)) if questions else []
        seen = []
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, RayError):
                log.warning("Ray job %s on %s cannot be looked up: %s", job.submission_id, job.conn_id, answer)
                seen.append(SeenJob(job=job, fault=answer))
            else:
                seen.append(self._told(job, answer))
        return seen

    def _told(self, job: TaskJob, answer: JobDetails | None) -> SeenJob:
        """What a cluster says about a remembered job; another job may have its id."""
        from airflow_provider_ray.client.jobs.submission import NONCE_KEY, has_nonce, is_of_task

        if answer is None or has_nonce(answer, job.nonce):
            return SeenJob(job=job, known=answer)
        if not is_of_task(answer, self._stamps):
            return SeenJob(job=job, is_id_taken=True)
        metadata = answer.metadata or {}
        # A submission from before a clear was faster than the one that was to take its id.
        holder = replace(job, nonce=metadata[NONCE_KEY], max_tries=choice_of(metadata)[0])
        self._reached[holder] = StoppableJob(self._reached[job].hook, job.submission_id, holder.nonce)
        return SeenJob(job=holder, known=answer)

    def _take_other_connections(self) -> None:
        """Look up jobs whose connection failed through other connections to the same cluster."""
        others = {
            each.job: replace(each.job, conn_id=conn_id)
            for each in self._seen
            if each.fault is not None
            for conn_id, session in self._sessions.items()
            if session == each.job.session
        }
        for job in others.values():
            self._reach(job)
        again = dict(
            zip(others, self._look_up(dict.fromkeys(others.values(), pacing.EARLIER_JOBS_SECONDS)), strict=True)
        )
        self._seen = [again.get(each.job, each) for each in self._seen]

    def _join(self, found: Sequence[FoundJob], current: CurrentAttempt) -> None:
        self._seen = join(self._seen, found, current)
        for job in (each.job for each in self._seen if each.job not in self._reached):
            log.info("Ray job %s of an earlier attempt is active on %s", job.submission_id, job.conn_id)
            self._reach(job)

    def _reach(self, job: TaskJob) -> None:
        """Take in a job on a cluster that was searched, so that its connection has been looked up and works."""
        if reached := StoppableJob.reach(self._hooks[job.conn_id], job.submission_id, job.nonce):
            self._reached[job] = reached

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


def _found(conn_id: str, job: JobDetails) -> FoundJob:
    from airflow_provider_ray.client.jobs.submission import NONCE_KEY

    return FoundJob(conn_id=conn_id, known=job, nonce=(job.metadata or {})[NONCE_KEY])


def _fault(step: GiveUp) -> RayError:
    if step.job is None:
        if step.fault is None:
            raise ValueError("nothing is known about why an attempt gives up")
        return step.fault
    return step.job.fault or _still_stopping(step.job)


def _still_stopping(seen: SeenJob) -> RayError:
    from airflow_provider_ray.client.errors import RayJobStopping

    if seen.known is None:
        raise ValueError(f"nothing is known of Ray job {seen.job.submission_id!r}")
    return RayJobStopping(seen.job.conn_id, seen.known, NOT_STOPPED)
