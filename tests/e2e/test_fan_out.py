"""Fan-outs over three clusters: the example Dags, and one of items."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_ray.local import LocalCluster
from dev.airflow_stack import AirflowStack
from dev.run import DAG_ID, run_dag
from tests.e2e.runs import Run, eventually, get, submitted_jobs

NAMES = ["ray_local_1", "ray_local_2", "ray_local_3"]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def beside(airflow: AirflowStack) -> Run:
    """Another run on the same clusters at the same time."""
    conf = {
        "amount": 400,
        "offset": 5000,
        "workers": 1,
        "actors": 1,
        "weights": {"CPU": 0.6, "memory": 0.2, "GPU": 0.2},
        "policy": 3,
    }
    return Run(airflow.api, DAG_ID, airflow.api.trigger(DAG_ID, conf))


@pytest.fixture(scope="module")
def demonstrated(
    airflow: AirflowStack, beside: Run, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
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
    sizes: list[int] = []
    shares = []
    for result in summary["clusters"].values():
        assert result["status"] == "SUCCEEDED"
        shares.append(result["share"])
        assert result["offset"] == sum(sizes)
        assert result["seconds"] > 0
        assert result["error"] is None
        assert result["taken_over"] == []
        parts = result["output"]["output"]
        sizes.append(sum(sum(part["counts"]) for part in parts))
        assert result["amount"] == sizes[-1]
        assert {count for part in parts for count in part["counts"]} <= set(range(1, 8))
        seeds += sum(
            count * mean for part in parts for count, mean in zip(part["counts"], part["seed"]["mean"], strict=True)
        )
    # The third cluster has twice the CPUs.
    assert shares == [0.25, 0.25, 0.5]
    assert sizes == [253, 253, 507]
    assert seeds == pytest.approx(sum(range(1013)))


def test_a_run_at_the_same_time_has_results_of_its_own(run: Run, beside: Run) -> None:
    beside.succeeds()
    this, that = (each.api.run(DAG_ID, each.run_id) for each in (beside, run))
    assert max(this["start_date"], that["start_date"]) < min(this["end_date"], that["end_date"])
    merged = list(beside.xcom("fan_out.merge").values())
    end = 5000
    for result in merged:
        assert result["offset"] == end
        end += result["amount"]
        assert of_range(result) == [result["amount"], pytest.approx(sum(range(result["offset"], end)))]
    assert end == 5400
    # The third has twice the CPUs, and as much memory as the others.
    first, second, third = (result["share"] for result in merged)
    assert first == pytest.approx(second)
    assert first < third < 2 * first


def of_range(result: dict[str, Any]) -> list[float]:
    """Count and sum of the numbers that an output is about, which together tell a range."""
    parts = result["output"]["output"]
    pairs = [pair for part in parts for pair in zip(part["counts"], part["seed"]["mean"], strict=True)]
    return [sum(count for count, _ in pairs), sum(count * mean for count, mean in pairs)]


def test_the_picture_is_a_png(demonstrated: tuple[dict[str, Any], Path], run: Run) -> None:
    picture = (demonstrated[1] / "summary.png").read_bytes()
    assert picture.startswith(PNG)
    assert b64decode(run.xcom("draw", key="ray_picture")) == picture
    path = f"ray/dags/{DAG_ID}/runs/{quote(run.run_id, safe='')}/tasks/draw/-1/picture"
    assert run.api.links(DAG_ID, run.run_id, "draw") == {"Ray plots": path}
    shown = run.api.page(path)
    assert shown.headers["Content-Type"] == "image/png"
    assert shown.content == picture


def test_each_job_ran_on_its_own_cluster(
    demonstrated: tuple[dict[str, Any], Path], run: Run, clusters: list[LocalCluster]
) -> None:
    for index, cluster in enumerate(clusters):
        (job,) = [job for job in submitted_jobs(cluster) if (job["metadata"] or {}).get("airflow_run_id") == run.run_id]
        assert job["submission_id"] == demonstrated[0]["clusters"][cluster.name]["submission_id"]
        assert job["metadata"].pop("airflow_nonce")
        assert job["metadata"].pop("airflow_try_number")
        assert job["metadata"].pop("airflow_max_tries")
        assert job["metadata"].pop("airflow_installation").startswith("127.0.0.1:")
        assert job["metadata"] == {
            "airflow_dag_id": DAG_ID,
            "airflow_run_id": run.run_id,
            "airflow_task_id": "fan_out.on_cluster.submit",
            "airflow_map_index": str(index),
        }


def test_xcoms_links_and_logs_of_the_mapped_tasks(run: Run, clusters: list[LocalCluster]) -> None:
    merged = run.xcom("fan_out.merge")
    for index, cluster in enumerate(clusters):
        submission_id = merged[cluster.name]["submission_id"]
        url = f"{cluster.url}/#/jobs/{submission_id}"
        assert run.xcom("fan_out.on_cluster.submit", index) == {"conn_id": cluster.name, "submission_id": submission_id}
        assert run.xcom("fan_out.on_cluster.submit", index, key="_link_RayJobLink") == url
        for task_id in ("fan_out.on_cluster.submit", "fan_out.on_cluster.wait"):
            assert run.api.links(DAG_ID, run.run_id, task_id, map_index=index) == {"Ray job": url}
        waited = run.xcom("fan_out.on_cluster.wait", index)
        assert waited.pop("seconds") > 0
        assert waited == {"conn_id": cluster.name, "submission_id": submission_id, "status": "SUCCEEDED"}
        log = run.last_log("fan_out.on_cluster.wait", index)
        assert log.count("Job success:True") == 1
        assert log.count("Starting Ray job") == 1
        assert run.task("fan_out.on_cluster.collect", index)["rendered_map_index"] == cluster.name


def test_applications_of_a_run_are_gone_after_it(run: Run, clusters: list[LocalCluster]) -> None:
    for share, cluster in zip(run.xcom("fan_out.plan"), clusters, strict=True):
        assert share["conn_id"] == cluster.name
        assert share["application"] not in get(cluster, "/api/serve/applications/")["applications"]


def test_items_over_the_clusters_with_a_label(runs: dict[str, Run]) -> None:
    run = runs["e2e_items"]
    run.succeeds()
    merged = run.xcom("fan_out.merge")
    assert {conn_id: result["status"] for conn_id, result in merged.items()} == {
        "labelled": "SUCCEEDED",
        "labelled_too": "SUCCEEDED",
    }
    # The second has twice the CPUs of the first.
    assert [result["share"] for result in merged.values()] == [pytest.approx(1 / 3), pytest.approx(2 / 3)]
    printed = []
    for index in range(2):
        (line,) = [line for line in run.last_log("fan_out.on_cluster.submit", index) if line.startswith("items ")]
        printed.append(json.loads(line.removeprefix("items ")))
    assert printed == [["e2e", "it's $(light)", "lighter"], ["e2e", "heavy", "lightest"]]


@pytest.mark.full
@pytest.mark.usefixtures("runs")
def test_the_schedule_starts_a_run_that_does_the_same(airflow: AirflowStack) -> None:
    """Without catch-up, a Dag that is switched on makes up for its latest date alone."""
    dag_id = "ray_processing_scheduled"
    airflow.wait_for_dags([dag_id])
    (found,) = eventually(lambda: airflow.api.call("GET", f"dags/{dag_id}/dagRuns")["dag_runs"] or None, "a run")
    assert found["run_type"] == "scheduled"
    run = Run(airflow.api, dag_id, found["dag_run_id"])
    run.succeeds()
    merged = run.xcom("fan_out.merge")
    assert list(merged) == NAMES
    counts = [sum(sum(part["counts"]) for part in result["output"]["output"]) for result in merged.values()]
    assert counts == [250, 250, 500]


@pytest.mark.full
def test_a_failing_job_fails_the_run_and_is_explained(
    airflow: AirflowStack, tmp_path: Path, capsys: pytest.CaptureFixture[str], clusters: list[LocalCluster]
) -> None:
    conf = {"clusters": ["ray_local_2"], "extensions": ["zip"], "linger_seconds": 5}
    assert run_dag(airflow, conf, tmp_path) == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["state"] == "failed"
    (result,) = summary["clusters"].values()
    assert (result["status"], result["output"], result["error"]["task"]) == ("FAILED", None, "collect")
    assert not (tmp_path / "summary.png").exists()
    printed = capsys.readouterr().out
    assert "Failed: fan_out.on_cluster.wait map_index=0" in printed
    assert "Parameter error" in printed
    assert "zip" in printed
    assert str(airflow.log_folder) in printed
    run = Run(airflow.api, DAG_ID, summary["run_id"])
    assert {job["status"] for job in run.jobs(clusters[1], "fan_out.on_cluster.submit")} == {"FAILED"}
