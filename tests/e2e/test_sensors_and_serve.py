"""Waiting for other people's jobs, and calling Serve applications, with a real Airflow."""

from __future__ import annotations

import pytest

from airflow_provider_ray.local import LocalCluster
from tests.e2e.runs import Run


@pytest.fixture(scope="module")
def sensors(runs: dict[str, Run]) -> Run:
    runs["e2e_sensors"].finished()
    return runs["e2e_sensors"]


@pytest.fixture(scope="module")
def serve(runs: dict[str, Run]) -> Run:
    runs["e2e_serve"].finished()
    return runs["e2e_serve"]


def test_the_output_of_mapped_submits_feeds_mapped_sensors(runs: dict[str, Run], clusters: list[LocalCluster]) -> None:
    run = runs["e2e_mapped"]
    run.succeeds()
    for index, cluster in enumerate(clusters):
        (job,) = run.jobs(cluster, "submit")
        assert job["metadata"]["airflow_map_index"] == str(index)
        assert run.xcom("submit", index) == {"conn_id": cluster.name, "submission_id": job["submission_id"]}
        waited = run.xcom("wait", index)
        assert (waited["conn_id"], waited["submission_id"]) == (cluster.name, job["submission_id"])
        assert waited["status"] == "SUCCEEDED"


def test_a_sensor_finds_a_job_by_metadata_and_reschedules(sensors: Run, clusters: list[LocalCluster]) -> None:
    sensors.expect("by_metadata", "success")
    (job,) = sensors.jobs(clusters[1], "good")
    assert sensors.xcom("by_metadata")["submission_id"] == job["submission_id"]
    assert sensors.last_log("by_metadata").count("it went well") == 1
    # The Dag submits the job only after it has seen the sensor rescheduled.
    assert sensors.task("until_by_metadata_is_up_for_reschedule")["state"] == "success"


def test_a_failed_job_skips_a_soft_sensor_and_fails_a_hard_one(sensors: Run, clusters: list[LocalCluster]) -> None:
    (job,) = sensors.jobs(clusters[1], "bad")
    assert job["status"] == "FAILED"
    sensors.expect("soft", "skipped")
    sensors.expect("hard", "failed")
    assert "RayJobFailed" in sensors.text("hard")
    assert "driver_exit_code=3" in sensors.text("hard")
    link = f"{clusters[1].url}/#/jobs/{job['submission_id']}"
    assert sensors.api.links(sensors.dag_id, sensors.run_id, "hard") == {"Ray job": link}


def test_a_sensor_gives_up_when_no_job_appears(sensors: Run) -> None:
    sensors.expect("late", "failed")
    assert "AirflowSensorTimeout" in sensors.text("late")
    assert "No job with metadata {'purpose': \"nobody's\"}" in sensors.text("late")


@pytest.mark.parametrize("task_id", ["early", "blocking", "ready", "by_route"])
def test_a_good_answer_is_the_xcom(serve: Run, task_id: str) -> None:
    assert serve.xcom(task_id) == {"numbers": [1, 2, 3]}


def test_the_early_call_was_deferred(serve: Run) -> None:
    assert serve.task("until_early_is_deferred")["state"] == "success"


def test_a_body_is_sent(serve: Run) -> None:
    assert serve.xcom("echo") == {"run": serve.run_id}
    assert serve.xcom("release") == {"released": True}


@pytest.mark.parametrize(
    ("task_id", "reasons"),
    [
        ("text", ["text/plain, not JSON"]),
        ("large", ["5002 bytes", "max_answer_bytes", "1000"]),
        ("broken", ["/answers/broken", "500"]),
        ("missing", ["/answers/missing", "404"]),
        ("nobody", ["application 'nobody' did not answer in time", "no such application"]),
    ],
)
def test_a_bad_answer_fails_the_task(serve: Run, task_id: str, reasons: list[str]) -> None:
    serve.expect(task_id, "failed")
    text = serve.text(task_id)
    for reason in reasons:
        assert reason in text


def test_the_serving_job_ended_well(serve: Run, clusters: list[LocalCluster]) -> None:
    (job,) = serve.jobs(clusters[2], "submit")
    assert job["status"] == "SUCCEEDED"
