"""What becomes of a job when a part of Airflow dies or a user intervenes: it runs once, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from airflow_provider_ray.local import LocalCluster
from dev.airflow_stack import AirflowStack
from tests.e2e.fault_proxy import FaultProxy
from tests.e2e.faults import BLOCKING, DEFERRED, CountingRun
from tests.e2e.reliability import Report
from tests.e2e.runs import Run, Trigger, eventually

Start = Callable[..., CountingRun]
LONGER, LONGEST = 40, 90
# Longest time between two reads of a log in a job's first minute, on a slow host.
READ_SECONDS = 8
BOTH = pytest.mark.parametrize("dag_id", [BLOCKING, DEFERRED])


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


@pytest.mark.parametrize("arrives", [False, True], ids=["before", "after"])
def test_a_task_process_that_is_killed_at_the_submission(
    airflow: AirflowStack, clusters: list[LocalCluster], report: Report, arrives: bool
) -> None:
    when = "after" if arrives else "before"
    with FaultProxy(clusters[0].ports.dashboard) as proxy:
        conn_id = f"killed_{when}_post"
        airflow.api.add_connections({conn_id: {"conn_type": "ray", "host": "127.0.0.1", "port": proxy.port}})
        with report.case(f"task process killed (SIGKILL) just {when} the POST", "the retry submits once") as seen:

            def kill() -> None:
                if arrives:
                    eventually(lambda: run.statuses() or None, "the job", pause=0.1)
                os.kill(run.pid(), signal.SIGKILL)

            def at_the_post() -> bool:
                if not arrives:
                    kill()
                return arrives

            run: CountingRun
            proxy.when(b"POST /api/jobs/ ", at_the_post)
            run = CountingRun(airflow.api, clusters[0], BLOCKING, {"conn_id": conn_id})
            if arrives:
                kill()
            run.succeeds()
            assert run.task("count")["try_number"] == 2
            seen(jobs=run.statuses(), state="success", lines=run.counted())
            assert run.statuses() == ["SUCCEEDED"]
            assert run.counted() == run.all_lines()


def test_a_task_process_that_is_killed(start: Start, report: Report) -> None:
    with report.case("task process killed (SIGKILL) while it polls", "the retry goes on with the job") as seen:
        run = start(BLOCKING)
        run.wait_until_watched()
        os.kill(run.pid(), signal.SIGKILL)
        run.succeeds()
        assert run.task("count")["try_number"] == 2
        seen(jobs=run.statuses(), state="success", lines=run.counted())
        assert run.statuses() == ["SUCCEEDED"]
        assert run.counted() == run.all_lines()


def test_a_task_process_that_is_terminated(start: Start, report: Report) -> None:
    expected = "the job is stopped, the retry submits another"
    with report.case("task process terminated (SIGTERM) while it polls", expected) as seen:
        run = start(BLOCKING)
        run.wait_until_watched()
        os.kill(run.pid(), signal.SIGTERM)
        run.succeeds()
        seen(jobs=run.statuses(), state="success", lines=run.counted())
        assert run.statuses() == ["STOPPED", "SUCCEEDED"]
        assert run.counted() == run.all_lines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_triggerer_that_is_replaced(
    airflow: AirflowStack, start: Start, report: Report, number: signal.Signals
) -> None:
    with report.case(f"triggerer ended ({number.name}) and started again", "the job goes on, waited for anew") as seen:
        run = start(DEFERRED, seconds=LONGER)
        run.wait_until_watched()
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
    expected = "the job goes on, waited for by the other one"
    with report.case("triggerer SIGSTOPped 40 s, a second one running", expected) as seen:
        run = start(DEFERRED, seconds=LONGEST)
        run.wait_until_watched()
        airflow.restart("triggerer 2")
        airflow.signal("triggerer", signal.SIGSTOP)
        time.sleep(40)
        airflow.signal("triggerer", signal.SIGCONT)
        run.succeeds()
        airflow.end("triggerer 2", signal.SIGTERM)
        seen(jobs=run.statuses(), state="success", lines=run.counted())
        assert run.statuses() == ["SUCCEEDED"]
        assert set(run.counted()) == set(run.all_lines())


def test_a_scheduler_that_is_killed(airflow: AirflowStack, start: Start, report: Report) -> None:
    """Its process group is killed, and with it the tasks of its LocalExecutor."""
    waited, deferred = start(BLOCKING, seconds=LONGER), start(DEFERRED, seconds=LONGER)
    with (
        report.case("scheduler and its workers killed (SIGKILL), started again", "the job goes on") as seen,
        report.case("scheduler killed (SIGKILL) while the task is deferred", "the job goes on") as seen_deferred,
    ):
        for run in (waited, deferred):
            run.wait_until_watched()
        with without(airflow, "scheduler", signal.SIGKILL):
            pass
        for run, saw in ((waited, seen), (deferred, seen_deferred)):
            run.succeeds()
            saw(jobs=run.statuses(), state="success", lines=run.counted())
            assert run.statuses() == ["SUCCEEDED"]
            assert run.counted() == run.all_lines()


@BOTH
@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_task_that_is_marked(start: Start, report: Report, dag_id: str, state: str) -> None:
    mode = "deferred" if dag_id == DEFERRED else "running"
    with report.case(f"marked {state} while {mode}", "the job is stopped") as seen:
        run = start(dag_id)
        run.wait_until_watched()
        run.api.set_task_state(dag_id, run.run_id, "count", state)
        eventually(lambda: run.statuses() == ["STOPPED"] or None, "the stop", 40)
        assert run.finished() == state
        seen(jobs=run.statuses(), state=state)
        assert run.task("count")["state"] == state


@BOTH
def test_a_task_that_is_cleared(start: Start, report: Report, dag_id: str) -> None:
    mode = "deferred" if dag_id == DEFERRED else "running"
    with report.case(f"cleared while {mode}", "the job is stopped, another is submitted") as seen:
        run = start(dag_id)
        run.wait_until_watched()
        run.api.clear(dag_id, run.run_id, "count")
        run.succeeds()
        seen(jobs=run.statuses(), state="success", lines=run.counted())
        assert run.statuses() == ["STOPPED", "SUCCEEDED"]
        assert run.counted() == run.all_lines()


def test_a_task_that_is_cleared_after_its_success(start: Start, report: Report) -> None:
    with report.case("cleared after success", "another job is submitted") as seen:
        run = start(DEFERRED)
        run.succeeds()
        run.api.clear(DEFERRED, run.run_id, "count")
        eventually(lambda: len(run.statuses()) == 2 or None, "the second job")
        run.succeeds()
        seen(jobs=run.statuses(), state="success", lines=run.counted())
        assert run.statuses() == ["SUCCEEDED", "SUCCEEDED"]


def test_an_id_that_another_job_has(start: Start, trigger: Trigger, airflow: AirflowStack, report: Report) -> None:
    with report.case("submission_id that another job has", "refused; the other job goes on") as seen:
        owner = start(BLOCKING)
        owner.wait_until_watched()
        (job,) = owner.jobs(owner.cluster, "count")
        taken = Run(
            airflow.api,
            "e2e_faults_taken",
            airflow.api.trigger("e2e_faults_taken", {"submission_id": job["submission_id"]}),
        )
        taken.expect("taken", "failed")
        assert "which another job on this cluster has" in taken.text("taken")
        owner.succeeds()
        seen(jobs=owner.statuses(), state="failed", lines=owner.counted())
        assert owner.statuses() == ["SUCCEEDED"]


def test_what_is_not_text(trigger: Trigger, clusters: list[LocalCluster], report: Report) -> None:
    with report.case("invalid UTF-8 and a line of 5 MB in the driver's log", "all of it is in the task log") as seen:
        run = trigger("e2e_faults_awkward")
        run.succeeds()
        statuses = [job["status"] for job in run.jobs(clusters[0], "write")]
        log = run.last_log("write")
        written = log[log.index("before") : log.index("after") + 1]
        seen(jobs=statuses, state="success", lines=[f"{number} {line}" for number, line in enumerate(written)])
        assert statuses == ["SUCCEEDED"]
        assert written[1] == "\ufffd\ufffd"
        assert "".join(written[2:-1]) == "x" * 5_000_000
