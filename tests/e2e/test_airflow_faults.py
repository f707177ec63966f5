"""What becomes of a job when a part of Airflow dies: it runs once, and its log arrives once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from airflow_provider_ray.local import LocalCluster
from dev.airflow_stack import AirflowStack
from tests.e2e.faults import BLOCKING, DEFERRED, CountingRun
from tests.e2e.reliability import Report
from tests.e2e.runs import eventually

pytestmark = pytest.mark.full

Start = Callable[..., CountingRun]
LONGER, LONGEST, HANG_SECONDS = 40, 120, 40
# Longest time between two reads of a log in a job's first minute, on a slow host.
READ_SECONDS = 8


@pytest.fixture
def start(airflow: AirflowStack, clusters: list[LocalCluster]) -> Start:
    """Start a run on the first cluster, or a deferred one on the second."""

    def started(dag_id: str, **conf: object) -> CountingRun:
        return CountingRun(airflow.api, clusters[dag_id == DEFERRED], dag_id, conf)

    return started


@contextmanager
def without(airflow: AirflowStack, name: str, number: signal.Signals) -> Iterator[None]:
    airflow.end(name, number)
    try:
        yield
    finally:
        airflow.restart(name)


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGTERM, id="SIGTERM"), pytest.param(signal.SIGKILL, id="SIGKILL", marks=pytest.mark.chaos)],
)
def test_a_triggerer_that_is_replaced(
    airflow: AirflowStack, start: Start, report: Report, number: signal.Signals
) -> None:
    with report.case(
        f"triggerer stopped ({number.name}) and restarted", "the job continues; the new triggerer watches it"
    ) as seen:
        run = start(DEFERRED, seconds=LONGER)
        run.wait_until_watched()
        eventually(lambda: len(run.counted()) > 2 * READ_SECONDS or None, "the log")
        with without(airflow, "triggerer", number):
            assert run.statuses() == ["RUNNING"]
        run.succeeds()
        lines = run.counted()
        seen(jobs=run.statuses(), state="success", lines=lines)
        assert run.statuses() == ["SUCCEEDED"]
        if number == signal.SIGTERM:
            assert lines == run.all_lines()
        else:
            # What one read held may come twice.
            assert set(lines) == set(run.all_lines())
            assert len(lines) <= LONGER + READ_SECONDS


@pytest.mark.chaos
def test_a_triggerer_that_hangs_while_another_takes_over(airflow: AirflowStack, start: Start, report: Report) -> None:
    expected = "the job continues; the other triggerer watches it"
    with report.case("triggerer suspended (SIGSTOP) for 40 s while a second one runs", expected) as seen:
        run = start(DEFERRED, seconds=LONGEST)
        run.wait_until_watched()
        first = run.triggerer()
        airflow.restart("triggerer 2")
        airflow.signal("triggerer", signal.SIGSTOP)
        time.sleep(HANG_SECONDS)
        eventually(lambda: run.triggerer() not in (first, None) or None, "the other triggerer")
        airflow.signal("triggerer", signal.SIGCONT)
        run.succeeds()
        airflow.end("triggerer 2", signal.SIGTERM)
        seen(jobs=run.statuses(), state="success", lines=run.counted())
        assert run.statuses() == ["SUCCEEDED"]
        assert set(run.counted()) == set(run.all_lines())


def test_a_scheduler_that_is_killed(airflow: AirflowStack, start: Start, report: Report) -> None:
    """The tasks of its LocalExecutor are killed with it."""
    waited, deferred = start(BLOCKING, seconds=LONGER), start(DEFERRED, seconds=LONGER)
    with (
        report.case("scheduler and its workers killed (SIGKILL), restarted", "the job continues") as seen,
        report.case("scheduler killed (SIGKILL) while the task is deferred", "the job continues") as seen_deferred,
    ):
        for run in (waited, deferred):
            run.wait_until_watched()
        with without(airflow, "scheduler", signal.SIGKILL):
            pass
        for run, saw in ((waited, seen), (deferred, seen_deferred)):
            run.ended(saw, "SUCCEEDED")
        assert waited.task("count")["try_number"] == 2
