"""A cluster that dies in the middle of four fan-outs that share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate
from typing import Any

import httpx
import psutil
import pytest

from airflow_provider_ray.local import LocalCluster, connections, local_clusters
from dev.airflow_stack import AirflowStack
from tests.e2e.reliability import Report
from tests.e2e.runs import Run, eventually, submitted_jobs
from tests.e2e.test_fan_out import of_range

AMOUNT, OFFSET = 400, 50
RUNS = {
    "all": ("ray_processing_fan_out", "all"),
    "any": ("ray_processing_fan_out", "any"),
    "a quorum of two": ("ray_processing_fan_out", 2),
    "all, others take over": ("ray_processing_take_over", "all"),
}
EXPECTED = {
    "all": "failed",
    "any": "success",
    "a quorum of two": "success",
    "all, others take over": "success",
}
FAULT = "head of one of three clusters killed (SIGKILL) during a fan-out"
MERGED = "fan_out.merge"
FAIL_OVER = "e2e_faults_fail_over"
LIMIT = 2

pytestmark = [pytest.mark.full, pytest.mark.chaos, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def doomed(airflow: AirflowStack) -> Iterator[LocalCluster]:
    with local_clusters(1) as (started,):
        cluster = replace(started, name="doomed")
        (fields,) = connections([cluster]).values()
        limited = {**fields, "extra": {**fields["extra"], "max_jobs": LIMIT}}
        airflow.api.add_connections({"doomed": fields, "doomed_limited": limited})
        yield cluster


@pytest.fixture(scope="module")
def runs(airflow: AirflowStack, clusters: list[LocalCluster], doomed: LocalCluster) -> dict[str, Run]:
    """Runs at the same time on the same clusters; the head is killed when each has a job that runs there."""
    # Without a CPU of that cluster, no job comes further than its middle.
    blocker = {"entrypoint": "sleep 3600", "entrypoint_num_cpus": 2}
    httpx.post(f"{doomed.url}/api/jobs/", json=blocker, trust_env=False, timeout=30).raise_for_status()
    names = [clusters[0].name, clusters[1].name, doomed.name]
    started = {}
    for name, (dag_id, policy) in RUNS.items():
        conf = {"clusters": names, "amount": AMOUNT, "offset": OFFSET, "policy": policy}
        started[name] = Run(airflow.api, dag_id, airflow.api.trigger(dag_id, conf))
    wait_until_running(doomed, started)
    started["fail over"] = Run(airflow.api, FAIL_OVER, airflow.api.trigger(FAIL_OVER))
    wait_until_running(doomed, started)
    assert doomed.pid is not None
    head = psutil.Process(doomed.pid)
    for process in [head, *head.children(recursive=True)]:
        # Some end with their parent.
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return started


def test_a_limit_of_jobs_in_flight(airflow: AirflowStack, doomed: LocalCluster) -> None:
    dag_id = "e2e_faults_limited"
    run = Run(airflow.api, dag_id, airflow.api.trigger(dag_id))
    run.succeeds()
    jobs = of_run(doomed, run)
    assert [job["status"] for job in jobs] == ["SUCCEEDED"] * 8
    changes = sorted([(job["start_time"], 1) for job in jobs] + [(job["end_time"], -1) for job in jobs])
    in_flight = list(accumulate(change for _, change in changes))
    assert max(in_flight) == LIMIT
    assert any("Waiting for room on doomed_limited" in run.text("deferred", index) for index in range(4))


@pytest.mark.parametrize("name", RUNS)
def test_a_fan_out_whose_cluster_dies(
    runs: dict[str, Run], report: Report, clusters: list[LocalCluster], doomed: LocalCluster, name: str
) -> None:
    run, takes_over = runs[name], "take over" in name
    with report.case(
        f"{FAULT}, policy: {name}",
        "other clusters take over its work" if takes_over else f"the run ends as {EXPECTED[name]}",
    ) as seen:
        assert eventually(lambda: run.api.run(run.dag_id, run.run_id)["end_date"], "the end", 900)
        assert run.finished() == EXPECTED[name]
        merged = run.xcom(MERGED)
        parts = [result for result in merged.values() if result["output"]]
        parts += [part for result in merged.values() for part in result["taken_over"]]
        statuses = [job["status"] for cluster in clusters[:2] for job in of_run(cluster, run)]
        seen(jobs=["lost", *statuses], state=EXPECTED[name], seconds=run.seconds())
    # Airflow stores the keys of an XCom in its own order.
    first, second, dead = (merged[name] for name in (clusters[0].name, clusters[1].name, doomed.name))
    assert (first["status"], second["status"], dead["status"]) == ("SUCCEEDED", "SUCCEEDED", "FAILED")
    assert dead["output"] is None
    assert dead["error"]["is_the_clusters"] is True
    assert dead["error"]["error_type"] in ("RayClusterUnavailable", "RayJobLost")
    for part in parts:
        whole = range(part["offset"], part["offset"] + part["amount"])
        assert of_range(part) == [len(whole), pytest.approx(sum(whole))]
    covered = sorted((part["offset"], part["amount"]) for part in parts)
    if not takes_over:
        assert covered == [(OFFSET, first["amount"]), (OFFSET + first["amount"], second["amount"])]
        return
    assert {part["from"] for result in (first, second) for part in result["taken_over"]} == {"doomed"}
    end = OFFSET
    for offset, amount in covered:
        assert offset == end
        end += amount
    assert end == OFFSET + AMOUNT


def wait_until_running(cluster: LocalCluster, runs: dict[str, Run]) -> None:
    def all_running() -> bool | None:
        states = [{job["status"] for job in of_run(cluster, run)} for run in runs.values()]
        return all(found == {"RUNNING"} for found in states) or None

    eventually(all_running, "a running job of each run on the doomed cluster", pause=0.5)


def of_run(cluster: LocalCluster, run: Run) -> list[dict[str, Any]]:
    return [job for job in submitted_jobs(cluster) if (job["metadata"] or {}).get("airflow_run_id") == run.run_id]


def test_a_job_fails_over_to_the_next_cluster(
    runs: dict[str, Run], report: Report, clusters: list[LocalCluster]
) -> None:
    fault = "head killed (SIGKILL), another cluster in conn_id"
    with report.case(fault, "the retry submits a job to the other cluster") as seen:
        run = runs["fail over"]
        run.succeeds()
        (job,) = of_run(clusters[0], run)
        lines = [line for line in run.last_log("count") if line.startswith("line ")]
        seen(jobs=["lost", job["status"]], state="success", lines=lines, seconds=run.seconds())
    assert job["status"] == "SUCCEEDED"
    assert run.xcom("count") == {"conn_id": "ray_local_1", "submission_id": job["submission_id"]}
    assert lines == [f"line {number}" for number in range(30)]


def test_no_job_is_left_active(runs: dict[str, Run], clusters: list[LocalCluster]) -> None:
    for run in runs.values():
        run.finished()
        for cluster in clusters[:2]:
            assert {job["status"] for job in of_run(cluster, run)} <= {"SUCCEEDED"}
