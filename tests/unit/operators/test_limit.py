"""Tasks whose connection says how many jobs may be in flight."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_ray.client import errors
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.operators.job import RaySubmitJobOperator
from airflow_provider_ray.triggers.job import RayJobTrigger
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.conftest import Attempts, TaskLog, connect
from tests.unit.deferral import first_event, rebuilt, run_deferred

MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferrable"])
WAITING = pytest.mark.parametrize("waits", [False, True], ids=["submits", "waits"])


def operator(**arguments: Any) -> RaySubmitJobOperator:
    given = {"task_id": "submit", "conn_id": "a", "entrypoint": "true", "poll_interval": 0.1, "deferrable": False}
    return RaySubmitJobOperator(**{**given, **arguments})


@pytest.fixture
def cluster(clusters: dict[str, FakeDashboard], monkeypatch: pytest.MonkeyPatch) -> FakeDashboard:
    """The cluster of the connection a, which takes two jobs at a time."""
    connect(monkeypatch, "a", clusters["a"], extra={"max_jobs": 2})
    return clusters["a"]


def occupy(cluster: FakeDashboard, ends_after: float | None = None) -> None:
    """Two jobs that take all the room."""
    for name in ("one", "two"):
        cluster.outcomes[name] = Outcome(ends_after=ends_after)
        RayHook("a").submit_job("sleep", submission_id=name)


def deferred(task: RaySubmitJobOperator, context: Any) -> RayJobTrigger:
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context)
    trigger = rebuilt(caught.value.trigger)
    assert isinstance(trigger, RayJobTrigger)
    return trigger


@MODES
@WAITING
def test_every_mode_submits_in_the_triggerer_and_ends_as_ever(
    cluster: FakeDashboard, context: Any, deferrable: bool, waits: bool
) -> None:
    cluster.default_outcome = Outcome(ends_after=0.5)
    task = operator(deferrable=deferrable, wait_for_completion=waits)
    trigger = deferred(task, context)
    assert not cluster.jobs
    event = asyncio.run(first_event(trigger))
    (job,) = cluster.jobs
    assert task.execute_complete(context, event) == {"conn_id": "a", "submission_id": job}
    if waits:
        assert cluster.jobs[job].status == "SUCCEEDED"


@MODES
def test_a_failed_job_fails_the_task_in_every_mode(cluster: FakeDashboard, context: Any, deferrable: bool) -> None:
    cluster.default_outcome = Outcome(status="FAILED", exit_code=7, ends_after=0.3)
    with pytest.raises(errors.RayJobFailed, match="driver_exit_code=7"):
        run_deferred(operator(deferrable=deferrable), context)


def test_twenty_tasks_share_two_places(cluster: FakeDashboard, attempts: Attempts) -> None:
    cluster.default_outcome = Outcome(ends_after=0.6)
    tasks = [operator(deferrable=bool(number % 2)) for number in range(20)]
    contexts = [Attempts().context(map_index=number) for number in range(20)]
    triggers = [deferred(task, context) for task, context in zip(tasks, contexts, strict=True)]

    async def in_one_triggerer() -> list[Any]:
        return await asyncio.gather(*(first_event(trigger) for trigger in triggers))

    events = asyncio.run(in_one_triggerer())
    results = [
        task.execute_complete(context, event) for task, context, event in zip(tasks, contexts, events, strict=True)
    ]
    assert sorted(result["submission_id"] for result in results) == sorted(cluster.jobs)
    assert {job.status for job in cluster.jobs.values()} == {"SUCCEEDED"}
    times = [(job.submitted, job.submitted + 0.6) for job in cluster.jobs.values()]
    assert max(sum(begin <= moment < end for begin, end in times) for moment, _ in times) == 2


def test_what_is_waited_for_is_said_once(cluster: FakeDashboard, context: Any, task_log: TaskLog) -> None:
    occupy(cluster, ends_after=2.5)
    run_deferred(operator(), context)
    assert [line for line in task_log.lines if "room" in line] == ["Waiting for room on a: 2 of 2 jobs in flight"]


async def killed(trigger: RayJobTrigger, after: float) -> None:
    """What Airflow does to the trigger of a task that a user has failed, which it tells by the message alone."""
    running = asyncio.create_task(first_event(trigger))
    await asyncio.sleep(after)
    running.cancel("Trigger cancelled by user action")
    with pytest.raises(asyncio.CancelledError, match="by user action"):
        await running
    await trigger.on_kill()


@MODES
def test_a_kill_while_there_is_no_room_submits_nothing(
    cluster: FakeDashboard, context: Any, deferrable: bool, task_log: TaskLog
) -> None:
    occupy(cluster, ends_after=1.5)
    trigger = deferred(operator(deferrable=deferrable), context)
    asyncio.run(killed(trigger, after=0.8))
    time.sleep(1)
    assert list(cluster.jobs) == ["one", "two"]
    assert task_log.lines[-1] == f"Asked Ray job {trigger.submission_id} to stop: the cluster has no such job"


def test_the_times_for_a_job_begin_with_its_submission(cluster: FakeDashboard, context: Any) -> None:
    occupy(cluster, ends_after=2.5)
    cluster.default_outcome = Outcome(running_after=0.3, ends_after=0.6)
    run_deferred(operator(deferrable=True, startup_timeout=2, timeout=2), context)


@pytest.mark.parametrize("limit", ["startup_timeout", "timeout"])
def test_and_they_end(cluster: FakeDashboard, context: Any, limit: str) -> None:
    cluster.default_outcome = Outcome(running_after=60, ends_after=None, stop_after=0.1)
    with pytest.raises(errors.RayJobTimeout, match="did not"):
        run_deferred(operator(deferrable=True, **{limit: 0.5}), context)


# Were the wait for room not counted apart, another number of seconds would be left.
@pytest.mark.parametrize(("skew_seconds", "left", "most"), [(0, 1, 4.5), (-3600, 1, 4.5), (3600, 5, 60)])
def test_a_trigger_that_starts_anew_goes_on_with_its_job_and_its_time(
    cluster: FakeDashboard, context: Any, skew_seconds: int, left: float, most: float
) -> None:
    """Also when the clock of the cluster is an hour off."""
    cluster.default_outcome = Outcome(ends_after=None, stop_after=0.1)
    trigger = deferred(operator(deferrable=True, timeout=5), context)

    async def restarted() -> tuple[Any, float]:
        first = asyncio.create_task(first_event(trigger))
        while not cluster.jobs:
            await asyncio.sleep(0.02)
        (job,) = cluster.jobs.values()
        job.submitted_ms += skew_seconds * 1000
        await asyncio.to_thread(occupy, cluster)
        await asyncio.sleep(4)
        first.cancel()
        started = time.monotonic()
        return await first_event(rebuilt(trigger)), time.monotonic() - started

    event, seconds = asyncio.run(restarted())
    assert event["job"]["submission_id"] == trigger.submission_id
    assert event["job"]["status"] == "RUNNING"
    assert left - 0.5 < seconds < most
    assert len(cluster.jobs) == 3


@MODES
def test_no_room_in_time_fails_the_task_and_the_next_attempt_waits_again(
    cluster: FakeDashboard, attempts: Attempts, deferrable: bool
) -> None:
    occupy(cluster)
    with pytest.raises(errors.RayJobTimeout, match=r"no room within its room_timeout, 2 of 2 jobs in flight"):
        run_deferred(operator(deferrable=deferrable, room_timeout=0.5), attempts.context(max_tries=2))
    remembered = attempts.store["ray_job"]
    del cluster.jobs["one"]
    result = run_deferred(operator(deferrable=deferrable), attempts.context(try_number=2, max_tries=2))
    assert result["submission_id"] == remembered["submission_id"]
    assert list(cluster.jobs) == ["two", remembered["submission_id"]]


def test_a_retry_that_goes_on_with_its_job_needs_no_room(cluster: FakeDashboard, attempts: Attempts) -> None:
    cluster.default_outcome = Outcome(ends_after=3)
    task = operator(wait_for_completion=False)
    context = attempts.context()
    trigger = deferred(task, context)
    # No log is shown, so none is asked for that has not been begun.
    assert not trigger.fetch_logs
    assert "ray_log_position" not in context["ti"].xcoms
    first = task.execute_complete(context, asyncio.run(first_event(trigger)))
    occupy(cluster)
    assert operator().execute(attempts.context(try_number=2)) == first


def test_a_cluster_that_dies_while_a_task_waits_for_room_is_left(
    clusters: dict[str, FakeDashboard], cluster: FakeDashboard, attempts: Attempts
) -> None:
    occupy(cluster)
    trigger = deferred(operator(conn_id=["a", "b"]), context := attempts.context(max_tries=3))

    async def dies() -> Any:
        waiting = asyncio.create_task(first_event(trigger))
        await asyncio.sleep(0.5)
        cluster.fail("close", times=1000)
        return await waiting

    event = asyncio.run(dies())
    with pytest.raises(errors.RayClusterUnavailable):
        operator(conn_id=["a", "b"]).execute_complete(context, event)
    assert operator(conn_id=["a", "b"]).execute(attempts.context(try_number=2, max_tries=3))["conn_id"] == "b"
    assert list(cluster.jobs) == ["one", "two"]


def test_a_limit_that_is_gone_when_the_trigger_starts_is_no_limit(
    clusters: dict[str, FakeDashboard], cluster: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    occupy(cluster)
    trigger = deferred(operator(), context)
    connect(monkeypatch, "a", cluster)
    event = asyncio.run(first_event(trigger))
    assert event["fault"] is None
    assert trigger.submission_id in cluster.jobs


def test_a_kill_after_the_submission_stops_the_job(cluster: FakeDashboard, context: Any) -> None:
    cluster.default_outcome = Outcome(ends_after=None, stop_after=0.1)
    trigger = deferred(operator(deferrable=True), context)
    asyncio.run(killed(trigger, after=1.0))
    assert [job.status for job in cluster.jobs.values()] == ["STOPPED"]
