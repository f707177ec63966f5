"""What an attempt does about the jobs of earlier attempts: resume one, stop some first, submit another, or give up.

:func:`decide` is pure. It gets what the task remembers and what the clusters report, and returns the next step; the
attempt takes that step and calls it again, until there is a job to resume or to submit. Before it submits, it searches
the clusters for jobs that the task does not remember; :func:`join` adds them to those that it does. The tables in
docs/operators.md describe the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from airflow_provider_ray.client.errors import RayClusterUnavailable
from airflow_provider_ray.client.states import SUCCEEDED, is_terminal
from airflow_provider_ray.jobs.memory import TaskJob, choice_of

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.errors import RayError

NEVER = -1  # as the ``max_tries`` of a job: no attempt resumes it


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenJob:
    """A job of an earlier attempt.

    :param job: what the task remembers about it.
    :param known: what the cluster reports about it; None if the cluster certainly has no such job, or with ``fault``.
    :param fault: why the job could not be looked up.
    :param asked_to_stop: this attempt has sent a stop request for it.
    :param is_id_taken: the cluster has another job with its id, so it cannot arrive any more.
    """

    job: TaskJob
    known: JobDetails | None = None
    fault: RayError | None = None
    asked_to_stop: bool = False
    is_id_taken: bool = False

    @property
    def is_active(self) -> bool:
        """Whether the cluster says that it has not ended."""
        return self.known is not None and not is_terminal(self.known.status)

    @property
    def has_succeeded(self) -> bool:
        """Whether the cluster says that it has succeeded."""
        return self.known is not None and self.known.status == SUCCEEDED

    @property
    def is_absent(self) -> bool:
        """Whether the cluster certainly has no such job."""
        return self.known is None and self.fault is None

    @property
    def may_arrive(self) -> bool:
        """Whether it is not there, but its submission may be on its way; one that was given up has been there."""
        return self.is_absent and not (self.is_id_taken or self.job.lost or self.job.stopping)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """Resume a job that is active or has succeeded.

    :param job: what the task remembers about it.
    :param status: its status on the cluster.
    """

    job: TaskJob
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopFirst:
    """Send stop requests for these jobs, then decide again.

    :param wait: wait for their end, because another job is about to be submitted.
    """

    jobs: tuple[SeenJob, ...]
    wait: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Search the clusters for active jobs of the task, then decide again: another job is about to be submitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Submit a job.

    :param job: a job that never arrived, to be submitted under its own id; None for a new job.
    """

    job: TaskJob | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Fail the attempt; the next one decides again.

    :param job: the job in the way: it could not be looked up (``job.fault``), or it did not stop in time.
    :param fault: instead of a job, why none of the clusters could be searched.
    """

    job: SeenJob | None = None
    fault: RayError | None = None


Step: TypeAlias = Adopt | StopFirst | Search | Submit | GiveUp


@dataclass(frozen=True, slots=True)
class CurrentAttempt:
    """What the decision depends on, besides the earlier jobs.

    :param clusters: connections it may use.
    :param max_tries: its ``max_tries``; a clear changes it.
    :param failed_on: connections whose cluster failed an attempt.
    :param try_number: its number; the first one cannot have predecessors of its own.
    :param resumes: whether it may resume a job that it only knows from the cluster: nothing is remembered, although it
        should be.
    """

    clusters: Sequence[str]
    max_tries: int
    failed_on: Sequence[str] = ()
    try_number: int = 1
    resumes: bool = False

    @property
    def is_first(self) -> bool:
        """Whether no attempt of this task instance came before it."""
        return self.try_number <= 1

    def owns(self, seen: SeenJob) -> bool:
        """Whether a success of the job is this attempt's result: no clear, other connection or timeout lies between."""
        job = seen.job
        return job.conn_id in self.clusters and job.max_tries == self.max_tries and not job.stopping

    def wants(self, seen: SeenJob) -> bool:
        """Whether the attempt may resume the job."""
        return self.owns(seen) and not seen.job.lost

    def takes_id(self, seen: SeenJob) -> bool:
        """Whether the attempt submits under the id of the job, so that only one of the two can ever run.

        That also holds for a cleared task, unless the job may be there: it would be resumed.
        """
        is_expected = seen.may_arrive and seen.job.conn_id in self.clusters
        return is_expected or (self.wants(seen) and self.can_run(seen))

    def can_run(self, seen: SeenJob) -> bool:
        """Whether the job is or may become active."""
        is_possible = seen.is_active or seen.fault is not None or seen.may_arrive
        return is_possible or (seen.is_absent and self.wants(seen))


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundJob:
    """An active job with the task's identity in its metadata.

    :param conn_id: connection of the cluster.
    :param known: what the cluster reports about it.
    :param nonce: see :class:`~airflow_provider_ray.jobs.memory.TaskJob`.
    """

    conn_id: str
    known: JobDetails
    nonce: str


def join(seen: Sequence[SeenJob], found: Sequence[FoundJob], current: CurrentAttempt) -> list[SeenJob]:
    """The jobs that the task remembers and those that were found on the clusters, each of them once, the newest first.

    Two connections may lead to the same cluster: a remembered job whose connection fails counts as found through the
    other one. A job that is not remembered is resumed by a later attempt of the same task instance if nothing is
    remembered, and is stopped otherwise.
    """
    by_nonce: dict[str, FoundJob] = {}
    for each in sorted(found, key=lambda each: -(each.known.start_time_ms or 0)):
        by_nonce.setdefault(each.nonce, each)
    joined = [_reached_by(each, by_nonce.pop(each.job.nonce, None)) for each in seen]
    return joined + [SeenJob(job=_as_remembered(each, current), known=each.known) for each in by_nonce.values()]


def _reached_by(seen: SeenJob, found: FoundJob | None) -> SeenJob:
    if found is None or seen.fault is None:
        return seen
    return replace(seen, job=replace(seen.job, conn_id=found.conn_id), known=found.known, fault=None)


def _as_remembered(found: FoundJob, current: CurrentAttempt) -> TaskJob:
    max_tries, try_number = choice_of(found.known.metadata or {})
    is_resumed = current.resumes and try_number < current.try_number
    return TaskJob(
        conn_id=found.conn_id,
        submission_id=str(found.known.submission_id),
        nonce=found.nonce,
        max_tries=max_tries if is_resumed else NEVER,
    )


def decide(seen: Sequence[SeenJob], current: CurrentAttempt, unsearched: Mapping[str, RayError] | None = None) -> Step:
    """The next step of an attempt.

    A job that has succeeded is the result, whichever attempt submitted it; otherwise an active one is resumed. Jobs
    that are not resumed are stopped. Before anything is submitted, the jobs of a cleared task and those past their
    timeout must have ended; the end of a lost job is not waited for. A task with one cluster needs its answer; a task
    with several skips a cluster that is unavailable.

    :param seen: the jobs of earlier attempts, the newest first.
    :param unsearched: clusters that could not be searched, and why; None before the search.
    """
    if _is_blocked(seen, current):
        return GiveUp(job=seen[0])
    adopted = _to_adopt(seen, current)
    if to_stop := tuple(each for each in seen if each.is_active and each is not adopted and not each.asked_to_stop):
        return StopFirst(jobs=to_stop, wait=adopted is None)
    if adopted is not None and adopted.known is not None:
        return Adopt(job=adopted.job, status=adopted.known.status)
    for each in seen:
        if each.asked_to_stop and not each.job.lost and (each.is_active or each.fault):
            return GiveUp(job=each)
    return Search() if unsearched is None else _submit(seen, current, unsearched)


def _submit(seen: Sequence[SeenJob], current: CurrentAttempt, unsearched: Mapping[str, RayError]) -> Submit | GiveUp:
    if not seen and not current.is_first and all(conn_id in unsearched for conn_id in current.clusters):
        # Nothing is known at all, although there may well be a job.
        return GiveUp(fault=unsearched[current.clusters[0]])
    newest = seen[0] if seen else None
    if newest and newest.is_absent and current.takes_id(newest) and newest.job.conn_id not in current.failed_on:
        return Submit(job=newest.job)
    return Submit()


def resubmission(conn_id: str, seen: Sequence[SeenJob], current: CurrentAttempt) -> TaskJob | None:
    """The job whose id a submission to a chosen cluster reuses: one that may be there, or never arrived.

    :func:`decide` only resubmits the newest job, and before a cluster is chosen; this is for a cluster that was chosen
    although it failed the attempt, or did not answer in time.
    """
    possible = (each.job for each in seen if current.takes_id(each))
    return next((job for job in possible if job.conn_id == conn_id), None)


def _is_blocked(seen: Sequence[SeenJob], current: CurrentAttempt) -> bool:
    """Whether nothing can be decided: the newest job cannot be looked up, and there is no other cluster to go to."""
    if not seen or seen[0].job.lost or seen[0].asked_to_stop or (fault := seen[0].fault) is None:
        return False
    # Only a cluster that is away may be left to itself: one that rejects credentials is running the job.
    return len(current.clusters) == 1 or not isinstance(fault, RayClusterUnavailable)


def _to_adopt(seen: Sequence[SeenJob], current: CurrentAttempt) -> SeenJob | None:
    succeeded = [each for each in seen if current.owns(each) and each.has_succeeded]
    active = [each for each in seen if current.wants(each) and each.is_active and not each.asked_to_stop]
    return next(iter([*succeeded, *active]), None)
