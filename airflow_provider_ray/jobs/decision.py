"""Which job an attempt goes on with, of those of earlier attempts, and what becomes of the others."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_ray.jobs.stopping import Target, stop_all

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.errors import RayError
    from airflow_provider_ray.jobs.memory import TaskJob

log = logging.getLogger(__name__)

# A cluster that does not answer in this time is passed over where there is another one to go to.
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A job of an earlier attempt, and what could be learned of it.

    :param job: what the task remembers.
    :param target: what stops it.
    :param is_ours: it belongs to this run of the task and to one of its clusters, and was not told to stop.
    :param known: what its cluster knows; None when it certainly has no such job, or with ``fault``.
    :param fault: why its cluster could not be asked.
    """

    job: TaskJob
    target: Target
    is_ours: bool
    known: JobDetails | None = None
    fault: RayError | None = None

    @property
    def has_succeeded(self) -> bool:
        from airflow_provider_ray.client.states import SUCCEEDED

        return self.known is not None and self.known.status == SUCCEEDED

    @property
    def is_active(self) -> bool:
        from airflow_provider_ray.client.states import is_terminal

        return self.known is not None and not is_terminal(self.known.status)

    @property
    def is_absent(self) -> bool:
        return self.known is None and self.fault is None

    @property
    def is_wanted(self) -> bool:
        """Whether an attempt may go on with the job, or submit it if it never arrived."""
        return self.is_ours and not self.job.lost

    @property
    def may_run(self) -> bool:
        """Whether it is, or may become, active; a submission that was sent can arrive late."""
        return self.is_active or self.fault is not None or (self.is_absent and self.is_wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """What is left of the earlier attempts.

    :param adopted: what this attempt goes on with; None when it has a choice to make.
    :param others: jobs that may be active, the newest first.
    """

    adopted: Seen | None
    others: Sequence[Seen]

    @property
    def targets(self) -> list[Target | None]:
        """What stops the adopted job, if there is one, and the others."""
        return [self.adopted.target if self.adopted else None, *(each.target for each in self.others)]

    def on(self, conn_id: str) -> Succession:
        """The same for an attempt on this cluster: a job that may be there, or never arrived, keeps its id."""
        adopted = next((each for each in self.others if each.is_wanted and each.job.conn_id == conn_id), None)
        return Succession(adopted=adopted, others=[each for each in self.others if each is not adopted])


def settle(
    earlier: Sequence[tuple[TaskJob, Target]], context: Context, clusters: Collection[str], failed_on: Collection[str]
) -> Succession:
    """Look at the jobs of earlier attempts, find the one to go on with, and stop the others.

    A job that has succeeded is the result, whichever attempt submitted it; else an active one is gone on with. The
    newest, if its cluster does not know it, is submitted there, unless that cluster has failed an attempt. Before
    anything is submitted, the jobs of a cleared task have ended, and so has one that was stopped for its timeout.

    Where the task has one cluster, that has to answer. Where it has several, one that does not answer within ten
    seconds is passed over, and its job is among the others.

    :param earlier: the jobs, the newest first.
    :param clusters: connections of this attempt.
    :param failed_on: connections whose cluster has failed an attempt.
    :raises RayRequestError: when the newest job cannot be looked up.
    :raises RayJobStopping: when a job that has to end before another is submitted has not.
    """
    seen = _look(earlier, context, clusters)
    if seen and (fault := seen[0].fault) and not seen[0].job.lost and not (len(clusters) > 1 and fault.transient):
        raise fault
    adopted = _to_adopt(seen, failed_on)
    is_over = adopted is not None and adopted.known is not None
    seen = [adopted if each is adopted else _stopped(each, must_end=not is_over) for each in seen]
    if not is_over:
        # A job that was given up as lost may have succeeded behind a broken network.
        adopted = next((each for each in seen if each.is_ours and each.has_succeeded), adopted)
    return Succession(adopted=adopted, others=[each for each in seen if each is not adopted and each.may_run])


def _look(earlier: Sequence[tuple[TaskJob, Target]], context: Context, clusters: Collection[str]) -> list[Seen]:
    """Ask all clusters at the same time; only the newest job of a task with one cluster is worth a long wait."""
    from airflow_provider_ray.client.clusters.asking import Question, ask_all
    from airflow_provider_ray.client.errors import RayError
    from airflow_provider_ray.client.jobs.submission import find
    from airflow_provider_ray.client.sync import run_sync

    questions = [
        Question(
            target.hook.get_conn(),
            partial(find, submission_id=job.submission_id, nonce=job.nonce),
            None if number == 0 and len(clusters) == 1 and not job.lost else PATIENCE_SECONDS,
        )
        for number, (job, target) in enumerate(earlier)
    ]
    answers = run_sync(lambda: ask_all(questions)) if questions else []
    seen = []
    for (job, target), answer in zip(earlier, answers, strict=True):
        is_ours = job.conn_id in clusters and job.max_tries == context["ti"].max_tries and not job.stopping
        each = Seen(job=job, target=target, is_ours=is_ours)
        if isinstance(answer, RayError):
            log.warning("Ray job %s on %s cannot be looked up: %s", job.submission_id, job.conn_id, answer)
            seen.append(replace(each, fault=answer))
        else:
            seen.append(replace(each, known=answer))
    return seen


def _to_adopt(seen: Sequence[Seen], failed_on: Collection[str]) -> Seen | None:
    succeeded = [each for each in seen if each.is_ours and each.has_succeeded]
    active = [each for each in seen if each.is_wanted and each.is_active]
    newest = [each for each in seen[:1] if each.is_wanted and each.is_absent and each.job.conn_id not in failed_on]
    return next(iter([*succeeded, *active, *newest]), None)


def _stopped(each: Seen, *, must_end: bool) -> Seen:
    """The job after it was told to stop, if it is active; the end of a lost one could be waited for for ever."""
    from airflow_provider_ray.client.errors import RayError, RayJobStopping
    from airflow_provider_ray.client.jobs.waiting import LOST_STOP_SECONDS
    from airflow_provider_ray.client.states import is_terminal

    if not each.is_active:
        return each
    log.info("Stopping Ray job %s of an earlier attempt, which is not to be continued", each.job.submission_id)
    is_awaited = must_end and not each.job.lost
    (left,) = stop_all([each.target], log, None if is_awaited else LOST_STOP_SECONDS)
    if isinstance(left, RayError):
        if is_awaited:
            raise left
        return replace(each, fault=left)
    if is_awaited and left is not None and not is_terminal(left.status):
        reason = "was told to stop and has not; the next attempt looks again"
        raise RayJobStopping(each.job.conn_id, left, reason)
    return replace(each, known=left)
