"""What an attempt does about the jobs of earlier attempts: resume one, stop some first, submit another, or give up.

:func:`decide` is pure. It gets what the task remembers and what the clusters report, and returns the next step; the
attempt takes that step and calls it again, until there is a job to resume or to submit. The tables in docs/operators.md
describe the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from airflow_provider_ray.client.errors import RayClusterUnavailable
from airflow_provider_ray.client.states import SUCCEEDED, is_terminal

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.errors import RayError
    from airflow_provider_ray.jobs.memory import TaskJob


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenJob:
    """A job of an earlier attempt.

    :param job: what the task remembers about it.
    :param known: what the cluster reports about it; None if the cluster certainly has no such job, or with ``fault``.
    :param fault: why the job could not be looked up.
    :param asked_to_stop: this attempt has sent a stop request for it.
    """

    job: TaskJob
    known: JobDetails | None = None
    fault: RayError | None = None
    asked_to_stop: bool = False

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
class Submit:
    """Submit a job.

    :param job: a job that never arrived, to be submitted under its own id; None for a new job.
    """

    job: TaskJob | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Fail the attempt; the next one decides again.

    :param job: the job in the way: it could not be looked up (``job.fault``), or it did not stop in time.
    """

    job: SeenJob


Step: TypeAlias = Adopt | StopFirst | Submit | GiveUp


@dataclass(frozen=True, slots=True)
class CurrentAttempt:
    """What the decision depends on, besides the earlier jobs.

    :param clusters: connections it may use.
    :param max_tries: its ``max_tries``; a clear changes it.
    :param failed_on: connections whose cluster failed an attempt.
    """

    clusters: Sequence[str]
    max_tries: int
    failed_on: Sequence[str] = ()

    def owns(self, seen: SeenJob) -> bool:
        """Whether a success of the job is this attempt's result: no clear, other connection or timeout lies between."""
        job = seen.job
        return job.conn_id in self.clusters and job.max_tries == self.max_tries and not job.stopping

    def wants(self, seen: SeenJob) -> bool:
        """Whether the attempt may resume the job, or submit it if it never arrived."""
        return self.owns(seen) and not seen.job.lost

    def can_run(self, seen: SeenJob) -> bool:
        """Whether the job is or may become active; a submission that was sent can arrive late."""
        return seen.is_active or seen.fault is not None or (seen.is_absent and self.wants(seen))


def decide(seen: Sequence[SeenJob], current: CurrentAttempt) -> Step:
    """The next step of an attempt.

    A job that has succeeded is the result, whichever attempt submitted it; otherwise an active one is resumed. Jobs
    that are not resumed are stopped. Before anything is submitted, the jobs of a cleared task and those past their
    timeout must have ended; the end of a lost job is not waited for. A task with one cluster needs its answer; a task
    with several skips a cluster that is unavailable.

    :param seen: the jobs of earlier attempts, the newest first.
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
    newest = seen[0] if seen else None
    if newest and newest.is_absent and current.wants(newest) and newest.job.conn_id not in current.failed_on:
        return Submit(job=newest.job)
    return Submit()


def resubmission(conn_id: str, seen: Sequence[SeenJob], current: CurrentAttempt) -> TaskJob | None:
    """The job whose id a submission to a chosen cluster reuses: one that may be there, or never arrived.

    :func:`decide` only resubmits the newest job, and before a cluster is chosen; this is for a cluster that was chosen
    although it failed the attempt, or did not answer in time.
    """
    possible = (each.job for each in seen if current.wants(each) and current.can_run(each))
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
