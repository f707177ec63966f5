"""What becomes of a job when the process of its task dies, or a user intervenes: it runs once, and none is left.

The cases run side by side.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pytest

from airflow_provider_ray.local import LocalCluster
from dev.airflow_stack import AirflowStack
from tests.e2e.fault_proxy import FaultProxy
from tests.e2e.faults import BLOCKING, DEFERRED, CountingRun, Playing, run_mode, side_by_side
from tests.e2e.reliability import Report
from tests.e2e.runs import Run, eventually, post

pytestmark = pytest.mark.full

# Long enough to be seen running on a slow host.
LONGER, LONGEST = 30, 120


class Stage:
    """What the cases share.

    :param airflow: the Airflow.
    :param clusters: the Ray clusters.
    :param report: the table of faults.
    """

    def __init__(self, airflow: AirflowStack, clusters: list[LocalCluster], report: Report) -> None:
        self.airflow, self.clusters, self.report = airflow, clusters, report

    def start(self, dag_id: str, **conf: object) -> CountingRun:
        """Start a run on the first cluster, or a deferred one on the second."""
        return CountingRun(self.airflow.api, self.clusters[dag_id == DEFERRED], dag_id, conf)

    def run(self, dag_id: str, **conf: object) -> Run:
        """Start a run of any Dag."""
        return Run(self.airflow.api, dag_id, self.airflow.api.trigger(dag_id, conf))


def killed_at_the_submission(stage: Stage, *, arrives: bool) -> None:
    when = "after" if arrives else "before"
    cluster = stage.clusters[0]
    with (
        FaultProxy(cluster.ports.dashboard) as proxy,
        stage.report.case(f"task process killed (SIGKILL) just {when} the POST", "the retry submits once") as seen,
    ):
        conn_id = f"killed_{when}_post"
        stage.airflow.api.add_connections({conn_id: {"conn_type": "ray", "host": "127.0.0.1", "port": proxy.port}})

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
        run = stage.start(BLOCKING, conn_id=conn_id)
        if arrives:
            kill()
        run.ended(seen, "SUCCEEDED")
        assert run.task("count")["try_number"] == 2


def killed_while_it_polls(stage: Stage) -> None:
    with stage.report.case("task process killed (SIGKILL) while it polls", "the retry resumes the job") as seen:
        run = stage.start(BLOCKING)
        run.wait_until_watched()
        os.kill(run.pid(), signal.SIGKILL)
        run.ended(seen, "SUCCEEDED")
        assert run.task("count")["try_number"] == 2


def forgotten_and_killed(stage: Stage) -> None:
    fault = "task state deleted, then task process killed (SIGKILL) while it polls"
    with stage.report.case(fault, "the retry finds the job on the cluster and resumes it") as seen:
        run = stage.start(BLOCKING, seconds=LONGER)
        run.wait_until_watched()
        run.api.forget(run.dag_id, run.run_id, "count")
        os.kill(run.pid(), signal.SIGKILL)
        run.ended(seen, "SUCCEEDED")
        assert run.task("count")["try_number"] == 2


def forgotten_and_cleared(stage: Stage) -> None:
    """What Airflow 3.4 does with every clear; the kill stops the job before, unless its process dies first."""
    fault = "task process killed (SIGKILL), task state deleted, and cleared"
    with stage.report.case(fault, "the job is stopped and a new one is submitted") as seen:
        run = stage.start("e2e_faults_once", seconds=LONGEST)
        run.wait_until_watched()
        os.kill(run.pid(), signal.SIGKILL)
        run.reaches("count", "failed")
        run.api.forget(run.dag_id, run.run_id, "count")
        run.api.clear(run.dag_id, run.run_id, "count")
        eventually(lambda: run.statuses() == ["STOPPED", "RUNNING"] or None, "the second job")
        run.api.set_task_state(run.dag_id, run.run_id, "count", "failed")
        eventually(lambda: run.statuses() == ["STOPPED", "STOPPED"] or None, "the stop", 40)
        seen(jobs=run.statuses(), state="failed")


def arriving_after_the_kill(stage: Stage) -> None:
    cluster, conn_id = stage.clusters[0], "arriving_late"
    fault = "submission arrives at the cluster after the task was marked failed; cleared"
    with (
        FaultProxy(cluster.ports.dashboard) as proxy,
        stage.report.case(fault, "the job is stopped and a new one is submitted") as seen,
    ):
        stage.airflow.api.add_connections({conn_id: {"conn_type": "ray", "host": "127.0.0.1", "port": proxy.port}})

        def kill() -> bool:
            process = run.pid()
            run.api.set_task_state(run.dag_id, run.run_id, "count", "failed")
            eventually(lambda: None if _is_alive(process) else True, "the end of the process", 60)
            return True

        run: CountingRun
        proxy.when(b"POST /api/jobs/ ", kill)
        run = stage.start("e2e_faults_once", conn_id=conn_id, seconds=LONGEST)
        eventually(lambda: run.statuses() == ["RUNNING"] or None, "the job")
        assert "its submission may still arrive" in run.text("count")
        run.api.clear(run.dag_id, run.run_id, "count")
        eventually(lambda: run.statuses() == ["STOPPED", "RUNNING"] or None, "the second job")
        run.api.set_task_state(run.dag_id, run.run_id, "count", "failed")
        eventually(lambda: run.statuses() == ["STOPPED", "STOPPED"] or None, "the stop", 40)
        seen(jobs=run.statuses(), state="failed")


def beside_another_airflow(stage: Stage) -> None:
    fault = "cleared while a job of another Airflow has the same Dag, run and task ids"
    with stage.report.case(fault, "the other Airflow's job continues") as seen:
        run = stage.start(BLOCKING, seconds=LONGER)
        run.wait_until_watched()
        (own,) = run.jobs(run.cluster, "count")
        theirs = f"of-another-airflow-{own['submission_id']}"
        metadata = {**own["metadata"], "airflow_installation": "staging.example", "airflow_nonce": "theirs"}
        job = {"entrypoint": f"sleep {LONGEST}", "submission_id": theirs, "metadata": metadata}
        post(run.cluster, "/api/jobs/", job)
        run.api.clear(run.dag_id, run.run_id, "count")
        run.succeeds()
        states = {each["submission_id"]: each["status"] for each in run.jobs(run.cluster, "count")}
        post(run.cluster, f"/api/jobs/{theirs}/stop", {})
        assert states.pop(theirs) == "RUNNING"
        assert list(states.values()) == ["STOPPED", "SUCCEEDED"]
        seen(jobs=[*states.values(), "RUNNING"], state="success", lines=run.counted())


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def terminated(stage: Stage) -> None:
    expected = "the job is stopped; the retry submits a new one"
    with stage.report.case("task process terminated (SIGTERM) while it polls", expected) as seen:
        run = stage.start(BLOCKING, seconds=LONGER)
        run.wait_until_watched()
        os.kill(run.pid(), signal.SIGTERM)
        run.ended(seen, "STOPPED", "SUCCEEDED")


def marked(stage: Stage, *, dag_id: str, state: str) -> None:
    with stage.report.case(f"marked {state} while {run_mode(dag_id)}", "the job is stopped") as seen:
        run = stage.start(dag_id, seconds=LONGEST)
        run.wait_until_watched()
        run.api.set_task_state(dag_id, run.run_id, "count", state)
        eventually(lambda: run.statuses() == ["STOPPED"] or None, "the stop", 40)
        assert run.finished() == state
        seen(jobs=run.statuses(), state=state)
        assert run.task("count")["state"] == state


def cleared(stage: Stage, *, dag_id: str) -> None:
    with stage.report.case(
        f"cleared while {run_mode(dag_id)}", "the job is stopped and a new one is submitted"
    ) as seen:
        run = stage.start(dag_id, seconds=LONGER)
        run.wait_until_watched()
        run.api.clear(dag_id, run.run_id, "count")
        run.ended(seen, "STOPPED", "SUCCEEDED")


def deleted(stage: Stage, *, dag_id: str) -> None:
    """As long as its run goes on, Airflow may make the task anew, which then goes on with the job or has another."""
    with stage.report.case(f"task instance deleted while {run_mode(dag_id)}", "the job is stopped") as seen:
        run = stage.start(dag_id, seconds=LONGEST)
        run.wait_until_watched()
        run.api.delete_task(dag_id, run.run_id, "count")
        run.api.call("PATCH", f"dags/{dag_id}/dagRuns/{run.run_id}", json={"state": "failed"})
        eventually(lambda: set(run.statuses()) == {"STOPPED"} or None, "the stop", 60)
        seen(jobs=run.statuses(), state="deleted")


def out_of_time(stage: Stage) -> None:
    with stage.report.case("execution_timeout while running", "the job is stopped") as seen:
        run = stage.start("e2e_faults_late", seconds=LONGEST)
        run.expect("count", "failed")
        eventually(lambda: run.statuses() == ["STOPPED"] or None, "the stop", 40)
        assert "AirflowTaskTimeout" in run.text("count")
        seen(jobs=run.statuses(), state="failed")


def cleared_after_its_success(stage: Stage) -> None:
    with stage.report.case("cleared after success", "a new job is submitted") as seen:
        run = stage.start(DEFERRED)
        run.succeeds()
        run.api.clear(DEFERRED, run.run_id, "count")
        eventually(lambda: len(run.statuses()) == 2 or None, "the second job")
        run.ended(seen, "SUCCEEDED", "SUCCEEDED")


def an_id_that_another_job_has(stage: Stage) -> None:
    with stage.report.case("submission_id already used by another job", "rejected; the other job continues") as seen:
        owner = stage.start(BLOCKING)
        owner.wait_until_watched()
        (job,) = owner.jobs(owner.cluster, "count")
        taken = stage.run("e2e_faults_taken", submission_id=job["submission_id"])
        taken.expect("taken", "failed")
        assert "which another job on this cluster uses" in taken.text("taken")
        owner.ended(seen, "SUCCEEDED")


def what_is_not_text(stage: Stage) -> None:
    fault = "invalid UTF-8 and a 5 MB line in the driver log"
    with stage.report.case(fault, "everything appears in the task log") as seen:
        run = stage.run("e2e_faults_awkward")
        run.succeeds()
        statuses = [job["status"] for job in run.jobs(stage.clusters[0], "write")]
        log = run.last_log("write")
        written = log[log.index("before") : log.index("after") + 1]
        seen(jobs=statuses, state="success", lines=[f"{number} {line}" for number, line in enumerate(written)])
        assert statuses == ["SUCCEEDED"]
        assert written[1] == "\ufffd\ufffd"
        assert "".join(written[2:-1]) == "x" * 5_000_000


CASES: Mapping[str, Callable[[Stage], None]] = {
    "killed before the POST": partial(killed_at_the_submission, arrives=False),
    "killed after the POST": partial(killed_at_the_submission, arrives=True),
    "killed while it polls": killed_while_it_polls,
    "forgotten and killed": forgotten_and_killed,
    "forgotten and cleared": forgotten_and_cleared,
    "arriving after the kill": arriving_after_the_kill,
    "beside another Airflow": beside_another_airflow,
    "terminated": terminated,
    **{
        f"marked {state} {dag_id}": partial(marked, dag_id=dag_id, state=state)
        for state in ("failed", "success")
        for dag_id in (BLOCKING, DEFERRED)
    },
    **{f"cleared {dag_id}": partial(cleared, dag_id=dag_id) for dag_id in (BLOCKING, DEFERRED)},
    **{f"deleted {dag_id}": partial(deleted, dag_id=dag_id) for dag_id in (BLOCKING, DEFERRED)},
    "out of time": out_of_time,
    "cleared after its success": cleared_after_its_success,
    "an id that another job has": an_id_that_another_job_has,
    "what is not text": what_is_not_text,
}


@pytest.fixture(scope="module")
def outcomes(airflow: AirflowStack, clusters: list[LocalCluster], report: Report) -> Iterator[Playing]:
    """The cases under way."""
    stage = Stage(airflow, clusters, report)
    with side_by_side({name: partial(case, stage) for name, case in CASES.items()}) as playing:
        yield playing


@pytest.mark.parametrize("name", CASES)
def test_a_task_and_its_job(outcomes: Playing, name: str) -> None:
    outcomes[name].result()
