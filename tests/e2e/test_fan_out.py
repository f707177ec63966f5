"""The example Dags on three clusters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ray.local import LocalCluster
from dev.airflow_stack import AirflowStack
from dev.run import DAG_ID, run_dag
from tests.e2e.runs import Run, eventually, get, submitted_jobs

NAMES = ["ray_local_1", "ray_local_2", "ray_local_3"]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def demonstrated(airflow: AirflowStack, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What the demonstration writes for a run."""
    out = tmp_path_factory.mktemp("demo")
    assert run_dag(airflow, {"amount": 1013, "tuple_batch": 7}, out) == 0
    return json.loads((out / "summary.json").read_text()), out


@pytest.fixture(scope="module")
def run(demonstrated: tuple[dict[str, Any], Path], airflow: AirflowStack) -> Run:
    return Run(airflow.api, DAG_ID, demonstrated[0]["run_id"])


def test_every_tuple_is_processed_exactly_once(demonstrated: tuple[dict[str, Any], Path]) -> None:
    summary, _ = demonstrated
    assert set(summary) == {"run_id", "state", "seconds", "clusters"}
    assert summary["state"] == "success"
    assert list(summary["clusters"]) == NAMES
    seeds = 0.0
    sizes = []
    for result in summary["clusters"].values():
        assert set(result) == {"submission_id", "status", "output"}
        assert result["status"] == "SUCCEEDED"
        sizes.append(sum(sum(part["counts"]) for part in result["output"]))
        assert {count for part in result["output"] for count in part["counts"]} <= set(range(1, 8))
        seeds += sum(
            count * mean
            for part in result["output"]
            for count, mean in zip(part["counts"], part["seed"]["mean"], strict=True)
        )
    assert sizes == [338, 338, 337]
    assert seeds == pytest.approx(sum(range(1013)))


def test_the_picture_is_a_png(demonstrated: tuple[dict[str, Any], Path], run: Run) -> None:
    picture = (demonstrated[1] / "summary.png").read_bytes()
    assert picture.startswith(PNG)
    assert Path(run.xcom("draw")).read_bytes() == picture


def test_each_job_ran_on_its_own_cluster(
    demonstrated: tuple[dict[str, Any], Path], run: Run, clusters: list[LocalCluster]
) -> None:
    for index, cluster in enumerate(clusters):
        (job,) = [job for job in submitted_jobs(cluster) if (job["metadata"] or {}).get("airflow_run_id") == run.run_id]
        assert job["submission_id"] == demonstrated[0]["clusters"][cluster.name]["submission_id"]
        assert job["metadata"].pop("airflow_nonce")
        assert job["metadata"] == {
            "airflow_dag_id": DAG_ID,
            "airflow_run_id": run.run_id,
            "airflow_task_id": "on_cluster.submit",
            "airflow_map_index": str(index),
        }


def test_xcoms_links_and_logs_of_the_mapped_tasks(run: Run, clusters: list[LocalCluster]) -> None:
    merged = run.xcom("merge")
    for index, cluster in enumerate(clusters):
        submission_id = merged[cluster.name]["submission_id"]
        url = f"{cluster.url}/#/jobs/{submission_id}"
        assert run.xcom("on_cluster.submit", index) == {"conn_id": cluster.name, "submission_id": submission_id}
        assert run.xcom("on_cluster.submit", index, key="_link_RayJobLink") == url
        for task_id in ("on_cluster.submit", "on_cluster.wait"):
            assert run.api.links(DAG_ID, run.run_id, task_id, map_index=index) == {"Ray job": url}
        waited = run.xcom("on_cluster.wait", index)
        assert waited.pop("seconds") > 0
        assert waited == {"conn_id": cluster.name, "submission_id": submission_id, "status": "SUCCEEDED"}
        log = run.last_log("on_cluster.wait", index)
        assert log.count("Job success:True") == 1
        assert log.count("Starting Ray job") == 1
        assert run.task("on_cluster.collect", index)["rendered_map_index"] == cluster.name


def test_applications_of_a_run_are_gone_after_it(run: Run, clusters: list[LocalCluster]) -> None:
    for share, cluster in zip(run.xcom("plan"), clusters, strict=True):
        assert share["conn_id"] == cluster.name
        assert share["application"] not in get(cluster, "/api/serve/applications/")["applications"]


@pytest.mark.usefixtures("runs")
def test_the_schedule_starts_a_run_that_does_the_same(airflow: AirflowStack) -> None:
    """Without catch-up, a Dag that is switched on makes up for its latest date alone."""
    dag_id = "ray_processing_scheduled"
    airflow.wait_for_dags([dag_id])
    (found,) = eventually(lambda: airflow.api.call("GET", f"dags/{dag_id}/dagRuns")["dag_runs"] or None, "a run")
    assert found["run_type"] == "scheduled"
    run = Run(airflow.api, dag_id, found["dag_run_id"])
    run.succeeds()
    merged = run.xcom("merge")
    assert list(merged) == NAMES
    counts = [sum(sum(part["counts"]) for part in result["output"]) for result in merged.values()]
    assert counts == [334, 333, 333]


def test_a_failing_job_fails_the_run_and_is_explained(
    airflow: AirflowStack, tmp_path: Path, capsys: pytest.CaptureFixture[str], clusters: list[LocalCluster]
) -> None:
    conf = {"clusters": ["ray_local_2"], "extensions": ["zip"], "linger_seconds": 5}
    assert run_dag(airflow, conf, tmp_path) == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["state"] == "failed"
    assert summary["clusters"] == {}
    assert not (tmp_path / "summary.png").exists()
    printed = capsys.readouterr().out
    assert "Failed: on_cluster.wait map_index=0" in printed
    assert "Parameter error" in printed
    assert "zip" in printed
    assert str(airflow.log_folder) in printed
    run = Run(airflow.api, DAG_ID, summary["run_id"])
    assert {job["status"] for job in run.jobs(clusters[1], "on_cluster.submit")} == {"FAILED"}
