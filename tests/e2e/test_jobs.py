"""Jobs submitted, waited for, failed, stopped and cleared by a real Airflow."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ray.local import LocalCluster
from dev.airflow_stack import AirflowStack
from dev.postgres import Database
from tests.e2e.runs import Run, Trigger, eventually, submitted_jobs

AWKWARD = {"text": 'it\'s "quoted" $(touch /tmp/never) `id` \\ über\nnext line'}
BOTH = pytest.mark.parametrize("task_id", ["blocking", "deferred"])


def job_ends(run: Run, cluster: LocalCluster, task_id: str) -> dict[str, Any]:
    """Wait until the last job of a task has ended."""

    def ended() -> dict[str, Any] | None:
        job = run.jobs(cluster, task_id)[-1]
        return job if job["status"] in ("SUCCEEDED", "FAILED", "STOPPED") else None

    return eventually(ended, f"the end of the job of {task_id}", 60)


@pytest.mark.parametrize(("task_id", "index"), [("blocking", 0), ("deferred", 2)])
def test_both_modes_give_the_same(runs: dict[str, Run], clusters: list[LocalCluster], task_id: str, index: int) -> None:
    run, cluster = runs["e2e_modes"], clusters[index]
    run.succeeds()
    (job,) = run.jobs(cluster, task_id)
    assert run.xcom(task_id) == {"conn_id": cluster.name, "submission_id": job["submission_id"]}
    assert run.api.links(run.dag_id, run.run_id, task_id) == {"Ray job": f"{cluster.url}/#/jobs/{job['submission_id']}"}
    assert job["metadata"].pop("airflow_nonce")
    assert job["metadata"].pop("airflow_try_number")
    assert job["metadata"].pop("airflow_max_tries")
    assert job["metadata"].pop("airflow_installation").startswith("127.0.0.1:")
    assert job["metadata"] == {
        "colour": "e2e_modes",
        "airflow_dag_id": "e2e_modes",
        "airflow_run_id": run.run_id,
        "airflow_task_id": task_id,
        "airflow_map_index": "-1",
    }
    log = run.last_log(task_id)
    assert log.count("first line") == 1
    assert log.count("greeting has 16 letters") == 1
    (line,) = [line for line in log if line.startswith("argument ")]
    assert json.loads(line.removeprefix("argument ")) == AWKWARD


@BOTH
def test_values_of_env_vars_are_not_shown(runs: dict[str, Run], task_id: str) -> None:
    run = runs["e2e_modes"]
    run.finished()
    rendered = json.dumps(run.task(task_id)["rendered_fields"])
    assert "GREETING" in rendered
    assert "kept-from-the-ui" not in rendered
    assert "kept-from-the-ui" not in run.text(task_id)


def test_the_environment_does_not_choose_the_cluster(runs: dict[str, Run], clusters: list[LocalCluster]) -> None:
    run = runs["e2e_templated"]
    run.succeeds()
    on = [cluster.name for cluster in clusters if run.jobs(cluster, "chosen")]
    assert on == ["ray_local_3"]
    assert run.run_id in run.log("chosen")


@BOTH
def test_a_failed_job_is_explained(runs: dict[str, Run], clusters: list[LocalCluster], task_id: str) -> None:
    run = runs["e2e_failing"]
    assert run.finished() == "failed"
    run.expect(task_id, "failed")
    text = run.text(task_id)
    explained = "RayJobFailed: Ray job '{}' on 'ray_local_1' failed"
    (job,) = run.jobs(clusters[0], task_id)
    assert explained.format(job["submission_id"]) in text
    assert "status=FAILED error_type=JOB_ENTRYPOINT_COMMAND_ERROR driver_exit_code=3" in text
    assert "Last lines of the driver log:\n" in text
    assert "\n  about to fail\n" in text
    assert f"Dashboard: {clusters[0].url}/#/jobs/{job['submission_id']}" in text


@BOTH
def test_what_a_job_says_in_its_last_moment_is_in_the_log(runs: dict[str, Run], task_id: str) -> None:
    run = runs["e2e_last_words"]
    run.succeeds()
    words = [line for line in run.last_log(task_id) if line.startswith("word ")]
    assert len(words) == 3000
    assert words == [f"word {number}" for number in range(3000)]


def test_a_log_that_is_shown_for_the_first_time_is_no_error(airflow: AirflowStack, runs: dict[str, Run]) -> None:
    run = runs["e2e_last_words"]
    run.succeeds()
    assert run.xcom("deferred", key="ray_log_position")["bytes"] > 0
    lines = (Path(airflow.log_folder) / "triggerer.log").read_text(errors="replace").splitlines()
    assert [line for line in lines if "XCom not found" in line and run.dag_id in line] == []


@BOTH
def test_a_job_that_takes_too_long_is_stopped(runs: dict[str, Run], clusters: list[LocalCluster], task_id: str) -> None:
    run = runs["e2e_timeout"]
    assert run.finished() == "failed"
    assert "RayJobTimeout" in run.text(task_id)
    assert job_ends(run, clusters[0], task_id)["status"] == "STOPPED"


@pytest.mark.parametrize(
    ("conn_id", "reason"),
    [
        ("no_such_connection", "The conn_id `no_such_connection` isn't defined"),
        ("not_ray", "conn_id: got 'not_ray' of type 'http'; expected a connection of type 'ray'"),
        ("not_a_dashboard", "RayNotADashboard"),
        ("wrong_token", "RayAuthError"),
    ],
)
def test_a_connection_that_cannot_work_fails_the_task(runs: dict[str, Run], conn_id: str, reason: str) -> None:
    run = runs["e2e_bad_connections"]
    assert run.finished() == "failed"
    assert reason in run.text(conn_id)


@pytest.mark.full
@pytest.mark.parametrize(
    ("dag_id", "index", "state"), [("e2e_killed_deferred", 2, "deferred"), ("e2e_killed_running", 0, "running")]
)
def test_a_job_whose_task_is_failed_by_hand_is_stopped(
    trigger: Trigger, clusters: list[LocalCluster], dag_id: str, index: int, state: str
) -> None:
    run = trigger(dag_id)
    eventually(lambda: running_job(run, clusters[index]), "the job")
    run.reaches("sleep", state)
    run.api.set_task_state(dag_id, run.run_id, "sleep", "failed")
    assert job_ends(run, clusters[index], "sleep")["status"] == "STOPPED"
    assert run.finished() == "failed"
    assert len(run.jobs(clusters[index], "sleep")) == 1


@pytest.mark.full
def test_a_task_that_is_failed_right_after_its_deferral_leaves_no_running_job(
    trigger: Trigger, clusters: list[LocalCluster]
) -> None:
    run = trigger("e2e_killed_deferred")
    run.reaches("sleep", "deferred", pause=0.05)
    run.api.set_task_state(run.dag_id, run.run_id, "sleep", "failed")
    assert run.finished() == "failed"
    time.sleep(10)
    assert [job for job in run.jobs(clusters[2], "sleep") if job["status"] != "STOPPED"] == []


@pytest.mark.full
def test_what_is_submitted_cannot_be_read_in_airflows_database(trigger: Trigger, database: Database) -> None:
    run = trigger("e2e_killed_deferred")
    run.reaches("sleep", "deferred")
    dump = ["pg_dump", "--data-only", database.address]
    everything = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
    run.api.set_task_state(run.dag_id, run.run_id, "sleep", "failed")
    assert run.finished() == "failed"
    assert [line for line in everything.splitlines() if "ray_local_3" in line and '"submission":' in line]
    assert "kept-from-the-database" not in everything


def running_job(run: Run, cluster: LocalCluster) -> Sequence[dict[str, Any]] | None:
    return [job for job in run.jobs(cluster, "sleep") if job["status"] == "RUNNING"] or None


@pytest.mark.full
def test_clearing_a_deferred_task_stops_its_job_and_submits_another(
    trigger: Trigger, clusters: list[LocalCluster]
) -> None:
    run = trigger("e2e_cleared")
    eventually(lambda: running_job(run, clusters[1]), "the job")
    run.reaches("sleep", "deferred")
    run.api.clear(run.dag_id, run.run_id, "sleep")
    run.succeeds()
    assert [job["status"] for job in run.jobs(clusters[1], "sleep")] == ["STOPPED", "SUCCEEDED"]


@pytest.mark.full
def test_a_deferred_task_holds_no_slot(trigger: Trigger) -> None:
    run = trigger("e2e_slot")
    run.reaches("waiting", "deferred")
    trivial = run.reaches("trivial", "success")
    assert run.task("waiting")["state"] == "deferred"
    run.succeeds()
    assert trivial["end_date"] < run.task("waiting")["end_date"]


@pytest.mark.parametrize(
    ("conn_id", "status", "message"),
    [
        ("ray_local_1", True, "1 of 1 nodes alive, no authentication"),
        ("ray_local_3", True, "1 of 1 nodes alive, token accepted"),
        ("wrong_token", False, "403"),
        ("not_a_dashboard", False, "Ray never returns here"),
    ],
)
def test_the_connection_test_of_the_form(airflow: AirflowStack, conn_id: str, status: bool, message: str) -> None:
    stored = airflow.api.call("GET", f"connections/{conn_id}")
    body = {key: stored[key] for key in ("connection_id", "conn_type", "host", "schema", "port", "password", "extra")}
    answer = airflow.api.call("POST", "connections/test", json=body)
    assert answer["status"] is status, answer
    assert message in answer["message"]
    assert "\n" not in answer["message"]


def test_no_token_is_in_any_log(airflow: AirflowStack, runs: dict[str, Run], clusters: list[LocalCluster]) -> None:
    for run in runs.values():
        run.finished()
    token = clusters[2].token
    assert token
    assert runs["e2e_templated"].jobs(clusters[2], "chosen")
    logs = [path for path in Path(airflow.log_folder).rglob("*.log*") if path.is_file()]
    assert len(logs) > len(runs)
    texts = {path: path.read_text(errors="replace") for path in logs}
    assert [path for path, text in texts.items() if token in text or "wrong-token" in text] == []


def test_nothing_of_an_unattended_run_is_left_running(runs: dict[str, Run], clusters: list[LocalCluster]) -> None:
    for run in runs.values():
        run.finished()
    ids = {run.run_id for run in runs.values()}
    jobs = [job for cluster in clusters for job in submitted_jobs(cluster)]
    ours = [job for job in jobs if (job["metadata"] or {}).get("airflow_run_id") in ids]
    assert ours
    assert [job["metadata"] for job in ours if job["status"] in ("PENDING", "RUNNING")] == []
