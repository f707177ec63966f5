"""What becomes of a job when something around it dies: it runs once, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from airflow_provider_ray.local import LocalCluster
from dev.airflow_stack import AirflowStack
from tests.e2e.reliability import Report
from tests.e2e.runs import Run, eventually

Start = Callable[..., Run]
SECONDS, LONGER = 15, 40
# Longest time between two reads of a log in a job's first minute, on a slow host.
READ_SECONDS = 8
BLOCKING, DEFERRED = "e2e_faults_blocking", "e2e_faults_deferred"
CLUSTERS = {BLOCKING: 0, DEFERRED: 1}
BOTH = pytest.mark.parametrize("dag_id", [BLOCKING, DEFERRED])


@pytest.fixture
def start(airflow: AirflowStack) -> Start:
    """Start a run, whose job prints a line per second."""

    def started(dag_id: str, seconds: int = SECONDS) -> Run:
        return Run(airflow.api, dag_id, airflow.api.trigger(dag_id, {"seconds": seconds}))

    return started


@pytest.fixture
def statuses(clusters: list[LocalCluster]) -> Callable[[Run], list[str]]:
    """States of all jobs that a run ever submitted, oldest first."""

    def ask(run: Run) -> list[str]:
        return [job["status"] for job in run.jobs(clusters[CLUSTERS[run.dag_id]], "count")]

    return ask


def running(run: Run, statuses: Callable[[Run], list[str]]) -> None:
    """Wait until the job runs and somebody waits for it."""
    eventually(lambda: "RUNNING" in statuses(run) or None, "the job")
    run.reaches("count", "deferred" if run.dag_id == DEFERRED else "running")
    time.sleep(3)


def counted(run: Run) -> list[str]:
    """The driver's lines in the log of the last attempt."""
    return [line for line in run.last_log("count") if line.startswith("line ")]


def all_lines(seconds: int = SECONDS) -> list[str]:
    return [f"line {number}" for number in range(seconds)]


@contextmanager
def without_triggerer(airflow: AirflowStack, number: signal.Signals) -> Iterator[None]:
    airflow.end("triggerer", number)
    try:
        yield
    finally:
        airflow.restart("triggerer")


def test_a_task_process_that_is_killed(start: Start, statuses: Callable[[Run], list[str]], report: Report) -> None:
    with report.case("task process killed (SIGKILL) while it polls", "the retry goes on with the job") as seen:
        run = start(BLOCKING)
        running(run, statuses)
        os.kill(run.task("count")["pid"], signal.SIGKILL)
        run.succeeds()
        assert run.task("count")["try_number"] == 2
        seen(jobs=statuses(run), state="success", lines=counted(run))
        assert statuses(run) == ["SUCCEEDED"]
        assert counted(run) == all_lines()


def test_a_task_process_that_is_terminated(start: Start, statuses: Callable[[Run], list[str]], report: Report) -> None:
    expected = "the job is stopped, the retry submits another"
    with report.case("task process terminated (SIGTERM) while it polls", expected) as seen:
        run = start(BLOCKING)
        running(run, statuses)
        os.kill(run.task("count")["pid"], signal.SIGTERM)
        run.succeeds()
        seen(jobs=statuses(run), state="success", lines=counted(run))
        assert statuses(run) == ["STOPPED", "SUCCEEDED"]
        assert counted(run) == all_lines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_triggerer_that_is_replaced(
    airflow: AirflowStack,
    start: Start,
    statuses: Callable[[Run], list[str]],
    report: Report,
    number: signal.Signals,
) -> None:
    with report.case(f"triggerer ended ({number.name}) and started again", "the job goes on, waited for anew") as seen:
        run = start(DEFERRED, LONGER)
        running(run, statuses)
        with without_triggerer(airflow, number):
            assert statuses(run) == ["RUNNING"]
        run.succeeds()
        seen(jobs=statuses(run), state="success", lines=counted(run))
        assert statuses(run) == ["SUCCEEDED"]
        lines = counted(run)
        if number == signal.SIGTERM:
            assert lines == all_lines(LONGER)
        else:
            # What one read held may come twice.
            assert set(lines) == set(all_lines(LONGER))
            assert len(lines) <= LONGER + READ_SECONDS


@BOTH
@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_task_that_is_marked(
    start: Start, statuses: Callable[[Run], list[str]], report: Report, dag_id: str, state: str
) -> None:
    mode = "deferred" if dag_id == DEFERRED else "running"
    with report.case(f"marked {state} while {mode}", "the job is stopped") as seen:
        run = start(dag_id)
        running(run, statuses)
        run.api.set_task_state(dag_id, run.run_id, "count", state)
        eventually(lambda: statuses(run) == ["STOPPED"] or None, "the stop", 40)
        assert run.finished() == state
        seen(jobs=statuses(run), state=state)
        assert run.task("count")["state"] == state


@BOTH
def test_a_task_that_is_cleared(
    start: Start, statuses: Callable[[Run], list[str]], report: Report, dag_id: str
) -> None:
    mode = "deferred" if dag_id == DEFERRED else "running"
    with report.case(f"cleared while {mode}", "the job is stopped, another is submitted") as seen:
        run = start(dag_id)
        running(run, statuses)
        run.api.clear(dag_id, run.run_id, "count")
        run.succeeds()
        seen(jobs=statuses(run), state="success", lines=counted(run))
        assert statuses(run) == ["STOPPED", "SUCCEEDED"]
        assert counted(run) == all_lines()


def test_a_task_that_is_cleared_after_its_success(
    start: Start, statuses: Callable[[Run], list[str]], report: Report
) -> None:
    with report.case("cleared after success", "another job is submitted") as seen:
        run = start(DEFERRED)
        run.succeeds()
        run.api.clear(DEFERRED, run.run_id, "count")
        eventually(lambda: len(statuses(run)) == 2 or None, "the second job")
        run.succeeds()
        seen(jobs=statuses(run), state="success", lines=counted(run))
        assert statuses(run) == ["SUCCEEDED", "SUCCEEDED"]
