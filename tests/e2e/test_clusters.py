"""What Airflow knows of its clusters: in tasks, in the triggerer and on the command line."""

from __future__ import annotations

import json

import pytest

from airflow_provider_ray.local import LocalCluster
from dev.airflow_stack import AirflowStack
from tests.e2e.runs import Run

CLUSTERS = {"ray_local_1", "ray_local_2", "ray_local_3"}


@pytest.fixture(scope="module")
def run(runs: dict[str, Run]) -> Run:
    runs["e2e_clusters"].finished()
    return runs["e2e_clusters"]


def test_a_task_knows_what_the_variable_names(run: Run) -> None:
    run.expect("known", "success")
    assert run.xcom("known") == ["labelled", "labelled_too", "ray_local_1"]
    assert run.xcom("chosen") == ["labelled", "labelled_too"]
    assert run.xcom("cpus") == 4.0


def test_the_sensor_in_a_worker_and_in_the_triggerer(run: Run) -> None:
    run.expect("blocking", "success")
    found = run.xcom("blocking")
    assert set(found) == CLUSTERS
    assert all(cluster["head_alive"] and cluster["free"]["memory"] > 0 for cluster in found.values())
    run.expect("deferred", "success")
    assert set(run.xcom("deferred")) == {"ray_local_3"}


def test_the_sensor_gives_up_and_says_what_was_lacking(run: Run) -> None:
    run.expect("lacking", "failed")
    assert "AirflowSensorTimeout" in run.text("lacking")
    assert "ray_local_2: it has no GPU" in run.text("lacking")


def test_the_sensor_fails_at_once_when_it_is_refused(run: Run, clusters: list[LocalCluster]) -> None:
    run.expect("refused", "failed")
    assert "RayAuthError" in run.text("refused")
    assert "connection 'wrong_token'" in run.text("refused")
    assert "403" in run.text("refused")
    assert str(clusters[2].token) not in run.text("refused")


@pytest.mark.full
def test_the_table_of_all_connections(airflow: AirflowStack, clusters: list[LocalCluster]) -> None:
    printed = airflow.command("ray", "clusters", "-o", "json")
    rows = {row["conn_id"]: row for row in json.loads(printed)}
    assert set(rows) >= {*CLUSTERS, "labelled", "not_a_dashboard", "wrong_token"}
    assert "not_ray" not in rows
    assert [rows[name]["health"] for name in sorted(CLUSTERS)] == ["healthy"] * 3
    assert [rows[name]["cpu_total"] for name in sorted(CLUSTERS)] == [2.0, 2.0, 4.0]
    assert [rows[name]["ray_version"][:5] for name in sorted(CLUSTERS)] == ["2.60.", "2.49.", "2.60."]
    assert rows["labelled"]["labels"] == {"place": "e2e"}
    assert "403" in rows["wrong_token"]["health"]
    assert rows["wrong_token"]["cpu_free"] is None
    assert "which Ray never returns here" in rows["not_a_dashboard"]["health"]
    assert str(clusters[2].token) not in printed
    assert "wrong-token" not in printed
