"""What an attempt does about earlier jobs: the rows of the tables in docs/operators.md that concern it, as values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_ray.client.api.models import JobDetails
from airflow_provider_ray.client.errors import RayAuthError, RayClusterUnavailable, RayError
from airflow_provider_ray.jobs.decision import (
    Adopt,
    CurrentAttempt,
    FoundJob,
    GiveUp,
    Search,
    SeenJob,
    Step,
    StopFirst,
    Submit,
    decide,
    join,
    resubmission,
)
from airflow_provider_ray.jobs.memory import TaskJob

AWAY = RayClusterUnavailable("GET http://a", "no answer")
REFUSED = RayAuthError("GET http://a", "403", 403)

OLD, NEW, NEWEST = (
    TaskJob(conn_id=conn_id, submission_id=f"job-{number}", nonce=f"n{number}", max_tries=3)
    for number, conn_id in enumerate(("a", "b", "a"))
)
ONE = CurrentAttempt(["a"], max_tries=3)
TWO = CurrentAttempt(["a", "b"], max_tries=3)
LEFT_A = replace(TWO, failed_on=["a"])
CLEARED = CurrentAttempt(["a"], max_tries=7)
CLEARED_TWO = CurrentAttempt(["a", "b"], max_tries=7)


def seen(job: TaskJob, state: str | RayError | None, *, asked: bool = False) -> SeenJob:
    """A job and what its cluster says: a status, a fault, or None for no such job."""
    if isinstance(state, RayError):
        return SeenJob(job=job, fault=state, asked_to_stop=asked)
    known = state and JobDetails(submission_id=job.submission_id, status=state)
    return SeenJob(job=job, known=known or None, asked_to_stop=asked)


def taken(job: TaskJob) -> SeenJob:
    return SeenJob(job=job, is_id_taken=True)


def lost(job: TaskJob) -> TaskJob:
    return replace(job, lost=True)


def stopping(job: TaskJob) -> TaskJob:
    return replace(job, stopping=True)


ROWS: dict[str, tuple[list[SeenJob], CurrentAttempt, Step]] = {
    "the first attempt": ([], ONE, Submit()),
    # A retry resumes the job: active -> wait, succeeded -> result, never arrived -> the same id, ended -> a new job.
    "retry, running": ([seen(OLD, "RUNNING")], ONE, Adopt(job=OLD, status="RUNNING")),
    "retry, pending": ([seen(OLD, "PENDING")], ONE, Adopt(job=OLD, status="PENDING")),
    "retry, in a status that Ray has not had so far": ([seen(OLD, "PAUSED")], ONE, Adopt(job=OLD, status="PAUSED")),
    "retry, succeeded": ([seen(OLD, "SUCCEEDED")], ONE, Adopt(job=OLD, status="SUCCEEDED")),
    "retry, never arrived": ([seen(OLD, None)], ONE, Submit(job=OLD)),
    "retry, failed": ([seen(OLD, "FAILED")], ONE, Submit()),
    "retry, stopped": ([seen(OLD, "STOPPED")], ONE, Submit()),
    # The cluster does not answer, or refuses us.
    "one cluster, away": ([seen(OLD, AWAY)], ONE, GiveUp(job=seen(OLD, AWAY))),
    "one cluster, refused": ([seen(OLD, REFUSED)], ONE, GiveUp(job=seen(OLD, REFUSED))),
    "two clusters, away": ([seen(OLD, AWAY)], TWO, Submit()),
    "two clusters, refused": ([seen(OLD, REFUSED)], TWO, GiveUp(job=seen(OLD, REFUSED))),
    # timeout passed, or startup_timeout: a retry starts a new job once the old one has ended.
    "timed out, running": (
        [seen(stopping(OLD), "RUNNING")],
        ONE,
        StopFirst(jobs=(seen(stopping(OLD), "RUNNING"),), wait=True),
    ),
    "timed out, has stopped": ([seen(stopping(OLD), "STOPPED", asked=True)], ONE, Submit()),
    "timed out, does not stop": (
        [seen(stopping(OLD), "RUNNING", asked=True)],
        ONE,
        GiveUp(job=seen(stopping(OLD), "RUNNING", asked=True)),
    ),
    "timed out, succeeded while it was being stopped": ([seen(stopping(OLD), "SUCCEEDED", asked=True)], ONE, Submit()),
    "timed out, gone": ([seen(stopping(OLD), None)], ONE, Submit()),
    # The job was lost: it is asked to stop, and a new one is submitted unless it has succeeded meanwhile.
    "lost, running": ([seen(lost(OLD), "RUNNING")], ONE, StopFirst(jobs=(seen(lost(OLD), "RUNNING"),), wait=True)),
    "lost, does not stop": ([seen(lost(OLD), "RUNNING", asked=True)], ONE, Submit()),
    "lost, cannot be asked to stop": ([seen(lost(OLD), AWAY, asked=True)], ONE, Submit()),
    "lost, gone": ([seen(lost(OLD), None)], ONE, Submit()),
    "lost, away": ([seen(lost(OLD), AWAY)], ONE, Submit()),
    "lost, has succeeded": ([seen(lost(OLD), "SUCCEEDED")], ONE, Adopt(job=lost(OLD), status="SUCCEEDED")),
    "lost, succeeded while it was being stopped": (
        [seen(lost(OLD), "SUCCEEDED", asked=True)],
        ONE,
        Adopt(job=lost(OLD), status="SUCCEEDED"),
    ),
    # The task was cleared: the old job is stopped, its end awaited, and a new one submitted.
    "cleared, running": ([seen(OLD, "RUNNING")], CLEARED, StopFirst(jobs=(seen(OLD, "RUNNING"),), wait=True)),
    "cleared, has stopped": ([seen(OLD, "STOPPED", asked=True)], CLEARED, Submit()),
    "cleared, does not stop": (
        [seen(OLD, "RUNNING", asked=True)],
        CLEARED,
        GiveUp(job=seen(OLD, "RUNNING", asked=True)),
    ),
    "cleared, cannot be asked to stop": (
        [seen(OLD, AWAY, asked=True)],
        CLEARED,
        GiveUp(job=seen(OLD, AWAY, asked=True)),
    ),
    "cleared, away": ([seen(OLD, AWAY)], CLEARED, GiveUp(job=seen(OLD, AWAY))),
    "cleared, away, another cluster": ([seen(OLD, AWAY)], CLEARED_TWO, Submit()),
    "cleared, had succeeded": ([seen(OLD, "SUCCEEDED")], CLEARED, Submit()),
    # Its submission may still be on its way: under the same id, only one of the two can run.
    "cleared, never arrived": ([seen(OLD, None)], CLEARED, Submit(job=OLD)),
    "cleared, never arrived, another job has its id": ([taken(OLD)], CLEARED, Submit()),
    "retry, another job has its id": ([taken(OLD)], ONE, Submit(job=OLD)),
    "another connection, never arrived": ([seen(NEW, None)], ONE, Submit()),
    "cleared, one runs on each cluster": (
        [seen(NEW, "RUNNING"), seen(OLD, "RUNNING")],
        CLEARED_TWO,
        StopFirst(jobs=(seen(NEW, "RUNNING"), seen(OLD, "RUNNING")), wait=True),
    ),
    # The task uses another connection now.
    "another connection, running": (
        [seen(NEW, "RUNNING")],
        ONE,
        StopFirst(jobs=(seen(NEW, "RUNNING"),), wait=True),
    ),
    "another connection, had succeeded": ([seen(NEW, "SUCCEEDED")], ONE, Submit()),
    # Several clusters: what is left behind.
    "left behind, has succeeded": (
        [seen(NEW, "FAILED"), seen(OLD, "SUCCEEDED")],
        LEFT_A,
        Adopt(job=OLD, status="SUCCEEDED"),
    ),
    "left behind, has succeeded, another runs": (
        [seen(NEW, "RUNNING"), seen(OLD, "SUCCEEDED")],
        LEFT_A,
        StopFirst(jobs=(seen(NEW, "RUNNING"),), wait=False),
    ),
    "left behind, has succeeded, the other one was asked to stop": (
        [seen(NEW, "RUNNING", asked=True), seen(OLD, "SUCCEEDED")],
        LEFT_A,
        Adopt(job=OLD, status="SUCCEEDED"),
    ),
    "left behind, active, its cluster answers again": (
        [seen(OLD, "RUNNING")],
        LEFT_A,
        Adopt(job=OLD, status="RUNNING"),
    ),
    "left behind, both active: the newer counts": (
        [seen(NEW, "RUNNING"), seen(OLD, "RUNNING")],
        LEFT_A,
        StopFirst(jobs=(seen(OLD, "RUNNING"),), wait=False),
    ),
    "left behind, the older does not stop": (
        [seen(NEW, "RUNNING"), seen(OLD, "RUNNING", asked=True)],
        LEFT_A,
        Adopt(job=NEW, status="RUNNING"),
    ),
    "left behind, away, the newer is active": (
        [seen(NEW, "RUNNING"), seen(OLD, AWAY)],
        LEFT_A,
        Adopt(job=NEW, status="RUNNING"),
    ),
    "never arrived, its cluster has failed the attempt": ([seen(OLD, None)], LEFT_A, Submit()),
    "never arrived, its cluster has not failed": ([seen(NEW, None), seen(OLD, AWAY)], LEFT_A, Submit(job=NEW)),
    "failed by its own code": ([seen(NEW, "FAILED"), seen(OLD, AWAY)], LEFT_A, Submit()),
    "an older one never arrived": ([seen(NEW, "FAILED"), seen(OLD, None)], TWO, Submit()),
}


@pytest.mark.parametrize(("earlier", "current", "step"), ROWS.values(), ids=ROWS)
def test_the_next_step(earlier: list[SeenJob], current: CurrentAttempt, step: Step) -> None:
    assert decide(earlier, current, {}) == step
    # Nothing is submitted before the clusters have been searched.
    assert decide(earlier, current) == (Search() if isinstance(step, Submit) else step)


RETRY = replace(ONE, try_number=2, resumes=True)
UNSEARCHED: dict[str, tuple[list[SeenJob], CurrentAttempt, list[str], Step]] = {
    "the first attempt": ([], ONE, ["a"], Submit()),
    "a retry that knows nothing": ([], RETRY, ["a"], GiveUp(fault=AWAY)),
    "a retry that knows a job": ([seen(OLD, "FAILED")], replace(RETRY, resumes=False), ["a"], Submit()),
    "a retry that could search one of two clusters": ([], replace(TWO, try_number=2), ["a"], Submit()),
    "a retry that could search neither": ([], replace(TWO, try_number=2), ["a", "b"], GiveUp(fault=AWAY)),
}


@pytest.mark.parametrize(("earlier", "current", "clusters", "step"), UNSEARCHED.values(), ids=UNSEARCHED)
def test_the_next_step_when_a_cluster_cannot_be_searched(
    earlier: list[SeenJob], current: CurrentAttempt, clusters: list[str], step: Step
) -> None:
    assert decide(earlier, current, dict.fromkeys(clusters, AWAY)) == step


def found(job: TaskJob, *, try_number: int = 1, max_tries: int = 3, age: int = 0) -> FoundJob:
    """An active job on a cluster, stamped by the attempt that submitted it."""
    metadata = {"airflow_try_number": str(try_number), "airflow_max_tries": str(max_tries)}
    known = JobDetails(submission_id=job.submission_id, status="RUNNING", metadata=metadata, start_time_ms=1000 - age)
    return FoundJob(conn_id=job.conn_id, known=known, nonce=job.nonce)


FOUND: dict[str, tuple[list[SeenJob], list[FoundJob], CurrentAttempt, Step | str]] = {
    "nothing": ([], [], RETRY, Submit()),
    # The store was wiped, or has never been there.
    "of the attempt before, nothing is remembered": ([], [found(OLD)], RETRY, Adopt(job=OLD, status="RUNNING")),
    "of the attempts before, the newest counts": (
        [],
        [found(OLD, age=5), found(NEWEST, try_number=2)],
        replace(RETRY, try_number=3),
        StopFirst(jobs=(SeenJob(job=OLD, known=found(OLD, age=5).known),), wait=False),
    ),
    # A clear raises max_tries; Airflow 3.4 then forgets what the task remembered.
    "before a clear": ([], [found(OLD, max_tries=2)], RETRY, "stop"),
    # The task instance was deleted and created again.
    "before the first attempt": ([], [found(OLD)], replace(ONE, resumes=True), "stop"),
    "of a higher number than this attempt": ([], [found(OLD, try_number=3)], RETRY, "stop"),
    "without stamps of an attempt": ([], [found(OLD, try_number=-1, max_tries=-1)], RETRY, "stop"),
    "each attempt submits": ([], [found(OLD)], replace(RETRY, resumes=False), "stop"),
    "another one is remembered": ([seen(NEWEST, "FAILED")], [found(OLD)], replace(RETRY, resumes=False), "stop"),
    # Two connections to one cluster.
    "remembered, found again": (
        [seen(OLD, AWAY)],
        [found(replace(OLD, conn_id="b"))],
        TWO,
        Adopt(job=replace(OLD, conn_id="b"), status="RUNNING"),
    ),
    "found twice": ([], [found(OLD), found(replace(OLD, conn_id="b"))], RETRY, Adopt(job=OLD, status="RUNNING")),
    "remembered, has ended meanwhile": ([seen(OLD, "FAILED")], [found(OLD)], ONE, Submit()),
}


@pytest.mark.parametrize(("earlier", "active", "current", "step"), FOUND.values(), ids=FOUND)
def test_the_next_step_after_a_search(
    earlier: list[SeenJob], active: list[FoundJob], current: CurrentAttempt, step: Step | str
) -> None:
    joined = join(earlier, active, current)
    if step == "stop":
        stranger = joined[-1]
        assert not current.owns(stranger)
        step = StopFirst(jobs=(stranger,), wait=True)
        assert decide([replace(stranger, asked_to_stop=True)], current, {}) == GiveUp(
            job=replace(stranger, asked_to_stop=True)
        )
    assert decide(joined, current, {}) == step


@pytest.mark.parametrize(
    ("conn_id", "earlier", "current", "job"),
    [
        ("a", [seen(OLD, None)], LEFT_A, OLD),
        ("b", [seen(OLD, None)], LEFT_A, None),
        ("a", [seen(OLD, AWAY)], TWO, OLD),
        ("a", [seen(OLD, "FAILED")], TWO, None),
        ("a", [seen(lost(OLD), AWAY)], TWO, None),
        ("a", [seen(OLD, None)], CLEARED_TWO, OLD),
        ("a", [seen(OLD, AWAY)], CLEARED_TWO, None),
        ("a", [seen(NEWEST, None), seen(OLD, None)], LEFT_A, NEWEST),
    ],
    ids=[
        "never arrived",
        "another cluster",
        "may be there",
        "has ended",
        "lost",
        "cleared, never arrived",
        "cleared, may be there",
        "the newest of two",
    ],
)
def test_a_job_that_may_be_on_the_chosen_cluster_keeps_its_id(
    conn_id: str, earlier: list[SeenJob], current: CurrentAttempt, job: TaskJob | None
) -> None:
    assert resubmission(conn_id, earlier, current) == job


@pytest.mark.parametrize(
    ("state", "can_run"),
    [("RUNNING", True), (AWAY, True), (None, True), ("FAILED", False), ("SUCCEEDED", False), ("STOPPED", False)],
)
def test_what_may_still_run_is_not_forgotten(state: str | RayError | None, can_run: bool) -> None:
    assert TWO.can_run(seen(OLD, state)) == can_run
    # One that was given up and that its cluster does not know cannot arrive any more.
    assert TWO.can_run(seen(lost(OLD), state)) == (can_run and state is not None)
