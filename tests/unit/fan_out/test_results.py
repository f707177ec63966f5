"""What came of a fan-out, by cluster."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ray.client.api.models import JobDetails
from airflow_provider_ray.client.errors import RayClusterUnavailable, RayJobFailed
from airflow_provider_ray.fan_out.faults import FAULT_KEY, note_fault
from airflow_provider_ray.fan_out.plan import Shard
from airflow_provider_ray.fan_out.results import (
    Fault,
    MappedTasks,
    ShardResult,
    failure_lines,
    merge,
    report,
    succeeded,
)

GROUP = "fan_out.on_cluster"


class Ti:
    """A task instance whose siblings have ended: states and XComs as Airflow keeps them."""

    dag_id, run_id = "dag", "run"

    def __init__(self, states: dict[str, str], xcoms: dict[tuple[str, str], Any]) -> None:
        self.states = {f"{GROUP}.{name}_0": state for name, state in states.items()}
        self.xcoms = xcoms
        self.pushed: dict[str, Any] = {}

    def get_task_states(self, dag_id: str, task_ids: list[str], run_ids: list[str]) -> dict[str, dict[str, str]]:
        return {self.run_id: self.states}

    def xcom_pull(self, task_ids: str, map_indexes: int, key: str) -> Any:
        assert map_indexes == 0
        return self.xcoms.get((task_ids.removeprefix(f"{GROUP}."), key))

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def shard(conn_id: str = "c1", **fields: Any) -> Shard:
    return Shard(conn_id=conn_id, application="a", serve_port=1, share=0.5, offset=0, amount=10, **fields)


def context(ti: Ti, **more: Any) -> Any:
    return {"ti": ti, **more}


def outcome_of(ti: Ti, serves: bool = True) -> ShardResult:
    return MappedTasks.ask(context(ti), GROUP, serves=serves).outcome(0, shard())


def outcome(
    states: dict[str, str], xcoms: dict[tuple[str, str], Any] | None = None, serves: bool = True
) -> ShardResult:
    return outcome_of(Ti(states, xcoms or {}), serves)


DONE = {
    ("submit", "submission_id"): "job-1",
    ("collect", "return_value"): {"output": [1]},
    ("wait", "return_value"): {"seconds": 4.5, "status": "SUCCEEDED"},
}


def test_a_cluster_whose_tasks_succeeded() -> None:
    assert outcome({"submit": "success", "collect": "success", "wait": "success"}, DONE) == {
        "share": 0.5,
        "offset": 0,
        "amount": 10,
        "status": "SUCCEEDED",
        "submission_id": "job-1",
        "seconds": 4.5,
        "output": {"output": [1]},
        "error": None,
    }


def test_a_cluster_whose_job_does_not_serve() -> None:
    found = outcome({"submit": "success", "wait": "success"}, {**DONE, ("collect", "return_value"): None}, serves=False)
    assert (found["status"], found["output"]) == ("SUCCEEDED", None)


@pytest.mark.parametrize(
    ("states", "task", "message"),
    [
        ({"submit": "failed", "collect": "upstream_failed", "wait": "upstream_failed"}, "submit", "the task is failed"),
        ({"submit": "success", "collect": "failed", "wait": "failed"}, "collect", "the task is failed"),
        ({"submit": "success", "collect": "success", "wait": "failed"}, "wait", "the task is failed"),
        ({"submit": "skipped", "collect": "skipped", "wait": "skipped"}, "submit", "the task is skipped"),
        ({"submit": "success", "collect": "removed", "wait": "success"}, "collect", "the task is removed"),
        ({"submit": "success", "wait": "success"}, "collect", "the task is None"),
        ({}, "submit", "the task is None"),
    ],
)
def test_a_cluster_whose_tasks_failed_says_where(states: dict[str, str], task: str, message: str) -> None:
    found = outcome(states, DONE)
    assert found["status"] == "FAILED"
    assert found["output"] is None
    assert found["submission_id"] == "job-1"
    assert found["error"] == {"task": task, "error_type": None, "message": message, "is_the_clusters": False}


def test_why_a_task_failed_is_noted_and_found_again() -> None:
    ti = Ti({"submit": "success", "collect": "failed", "wait": "failed"}, {})
    note_fault(context(ti, exception=RayClusterUnavailable("GET http://c1", "no answer")))
    ti.xcoms["collect", FAULT_KEY] = ti.pushed[FAULT_KEY]
    assert outcome_of(ti)["error"] == {
        "task": "collect",
        "error_type": "RayClusterUnavailable",
        "message": "GET http://c1: no answer",
        "is_the_clusters": True,
    }


def test_a_job_that_failed_is_not_its_clusters_fault() -> None:
    ti = Ti({}, {})
    job = JobDetails(submission_id="j", status="FAILED", message="x" * 10_000, start_time_ms=1000, end_time_ms=3500)
    error = RayJobFailed("c1", job, "failed")
    note_fault(context(ti, exception=error))
    noted = ti.pushed[FAULT_KEY]
    assert (noted["error_type"], noted["is_the_clusters"], len(noted["message"])) == ("RayJobFailed", False, 2000)
    assert noted["seconds"] == 2.5
    ti.states = {f"{GROUP}.{name}_0": state for name, state in {"submit": "success", "wait": "failed"}.items()}
    ti.xcoms["wait", FAULT_KEY] = noted
    found = outcome_of(ti, serves=False)
    assert found["error"] is not None
    assert (found["status"], found["seconds"], found["error"]["task"]) == ("FAILED", 2.5, "wait")


def test_a_secret_is_not_in_what_is_noted() -> None:
    from airflow.sdk.log import mask_secret

    mask_secret("very-secret-token")
    ti = Ti({}, {})
    note_fault(context(ti, exception=RuntimeError("printed very-secret-token")))
    assert ti.pushed[FAULT_KEY]["message"] == "printed ***"


def failure(message: str) -> Fault:
    return {"task": "collect", "error_type": None, "message": message, "is_the_clusters": False}


def result(status: str, *, output: Any = None, error: Fault | None = None) -> ShardResult:
    return {
        "share": 0.5,
        "offset": 0,
        "amount": 10,
        "status": status,
        "submission_id": "job-1",
        "seconds": 4.5,
        "output": output,
        "error": error,
    }


GOOD = result("SUCCEEDED", output=1)
BAD = result("FAILED", error=failure("gone\nfor good"))


def test_every_cluster_is_in_the_result() -> None:
    merged = merge([(shard("c1"), GOOD), (shard("c2"), BAD)], [], idle=["c3"], unavailable={"c4": "no answer"})
    assert {conn_id: result["status"] for conn_id, result in merged.items()} == {
        "c1": "SUCCEEDED",
        "c2": "FAILED",
        "c3": "NO_WORK",
        "c4": "FAILED",
    }
    keys = {"share", "offset", "amount", "submission_id", "seconds", "output", "status", "error", "taken_over"}
    assert set(merged["c3"]) == set(merged["c4"]) == keys
    assert succeeded(merged) == ["c1"]
    assert failure_lines(merged, ["c1"]) == ["c2: collect: gone", "c4: plan: no answer"]
    merged["c2"]["error"] = failure("")
    assert failure_lines(merged, ["c1"])[0] == "c2: collect: no reason given"


def test_the_log_of_merge_tells_what_became_of_each_part_and_why() -> None:
    lines = ["Ray job 'j' failed", "Ray says: x", "Last lines:", "  Traceback", "  ValueError: boom", "Dashboard: y"]
    bad = result("FAILED", error=failure("\n".join(lines)))
    own = [(shard("c1"), GOOD), (shard("c22"), bad)]
    merged = merge(own, [(shard("c1", taken_over_from="c22"), GOOD)], idle=["c3"], unavailable={})
    assert report(merged) == [
        "c1          SUCCEEDED  50.0% of the work (10) in 4.5 s",
        "c1 for c22  SUCCEEDED  50.0% of the work (10) in 4.5 s",
        "c22         FAILED     50.0% of the work (10); collect: Ray job 'j' failed: ValueError: boom",
        "c3          NO_WORK    0.0% of the work (0)",
    ]
    assert failure_lines(merged, ["c1"]) == ["c22: collect: Ray job 'j' failed: ValueError: boom"]


@pytest.mark.parametrize(("second", "done"), [(GOOD, ["c1", "c2", "c3"]), (BAD, ["c1", "c3"])])
def test_work_that_others_took_over_is_done_when_all_of_it_is(second: ShardResult, done: list[str]) -> None:
    own = [(shard("c1"), GOOD), (shard("c2"), BAD), (shard("c3"), GOOD)]
    taken = [(shard("c1", taken_over_from="c2"), GOOD), (shard("c3", taken_over_from="c2"), second)]
    merged = merge(own, taken, idle=[], unavailable={})
    assert [part["from"] for part in merged["c1"]["taken_over"]] == ["c2"]
    assert merged["c2"]["output"] is None
    assert succeeded(merged) == done
