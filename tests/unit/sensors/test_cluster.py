"""RayClusterSensor: waits until clusters are healthy or have room."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import (
    AirflowNotFoundException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_ray.client import errors
from airflow_provider_ray.sensors.cluster import RayClusterSensor
from tests.fake_dashboard import FakeDashboard
from tests.unit.conftest import TaskLog, connect
from tests.unit.deferral import resume, run_deferred

MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferrable"])


def sensor(**arguments: Any) -> RayClusterSensor:
    given = {"task_id": "wait", "conn_id": "fake", "poke_interval": 0.1, "timeout": 30, "deferrable": False}
    return RayClusterSensor(**{**given, **arguments})


def run(task: RayClusterSensor, context: Any) -> Any:
    return run_deferred(task, context) if task.deferrable else task.execute(context)


@pytest.fixture
def other(dashboard: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDashboard]:
    """A second cluster, behind the connection ``other``."""
    with FakeDashboard() as fake:
        connect(monkeypatch, "other", fake)
        yield fake


def later(fake: FakeDashboard, change: Any, *arguments: Any) -> None:
    """Change a cluster some time after it was first asked, however long that takes on a busy host."""

    def work() -> None:
        while not fake.asked("GET", "/api/v0/nodes"):
            time.sleep(0.02)
        time.sleep(0.7)
        change(*arguments)

    threading.Thread(target=work, daemon=True).start()


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_healthy_cluster_ends_the_wait_at_once(dashboard: FakeDashboard, context: Any, deferrable: bool) -> None:
    result = sensor(deferrable=deferrable).execute(context)
    assert set(result) == {"fake"}
    assert result["fake"]["ray_version"] == "2.60.0"
    assert result["fake"]["free"]["CPU"] == 2.0


@MODES
def test_waits_for_the_head(dashboard: FakeDashboard, context: Any, task_log: TaskLog, deferrable: bool) -> None:
    dashboard.nodes[0]["state"] = "DEAD"
    later(dashboard, dashboard.nodes[0].update, {"state": "ALIVE"})
    assert run(sensor(deferrable=deferrable), context)["fake"]["head_alive"] is True
    assert task_log.lines.count("Not ready yet: fake: its head node is dead") == 1


@MODES
def test_waits_for_room(dashboard: FakeDashboard, context: Any, deferrable: bool) -> None:
    dashboard.used["CPU"] = 1.5
    later(dashboard, dashboard.used.clear)
    task = sensor(free_resources={"CPU": "1"}, max_pending_jobs=0, max_running_jobs=0, deferrable=deferrable)
    assert run(task, context)["fake"]["free"]["CPU"] == 2.0


@MODES
@pytest.mark.parametrize("policy", ["any", 1, "1"])
def test_one_of_several(
    dashboard: FakeDashboard, other: FakeDashboard, context: Any, deferrable: bool, policy: Any
) -> None:
    for fake in (dashboard, other):
        fake.used["CPU"] = 2.0
    later(other, other.used.clear)
    task = sensor(conn_id=["fake", "other"], free_resources={"CPU": 1}, policy=policy, deferrable=deferrable)
    assert set(run(task, context)) == {"other"}


@MODES
def test_all_of_several(dashboard: FakeDashboard, other: FakeDashboard, context: Any, deferrable: bool) -> None:
    other.used["CPU"] = 2.0
    later(other, other.used.clear)
    task = sensor(conn_id=("fake", "other"), free_resources={"CPU": 1}, deferrable=deferrable)
    assert set(run(task, context)) == {"fake", "other"}


@MODES
def test_a_cluster_that_does_not_answer_is_waited_for(
    dashboard: FakeDashboard, other: FakeDashboard, context: Any, deferrable: bool
) -> None:
    dashboard.fail(503, path="/api/version", times=2)
    other.fail("close", path="/api/v0/nodes", times=2)
    assert set(run(sensor(conn_id=["fake", "other"], deferrable=deferrable), context)) == {"fake", "other"}


@MODES
@pytest.mark.parametrize(
    "unknown", [{"free_resources": {"CPU": 1}}, {"max_running_jobs": 5}, {"max_pending_jobs": 5}], ids=str
)
def test_unknown_is_never_room(
    dashboard: FakeDashboard, context: Any, deferrable: bool, unknown: dict[str, Any]
) -> None:
    dashboard.has_status = False
    dashboard.fail(500, path="/api/v0/jobs", times=1000)
    with pytest.raises(AirflowSensorTimeout):
        run(sensor(timeout=0.3, deferrable=deferrable, **unknown), context)


def test_the_time_is_up_with_what_is_lacking(dashboard: FakeDashboard, other: FakeDashboard, context: Any) -> None:
    task = sensor(conn_id=["fake", "other"], free_resources={"GPU": 1}, timeout=0.3, deferrable=True)
    message = "0 of the clusters were ready in time, 2 required; fake: it has no GPU; other: it has no GPU"
    with pytest.raises(AirflowSensorTimeout, match=message):
        run(task, context)


@pytest.mark.parametrize(
    ("flag", "deferrable"),
    # In the mode poke Airflow itself times a sensor out, and knows soft_fail alone there.
    [("soft_fail", False), ("soft_fail", True), ("never_fail", True)],
)
def test_skips_when_the_time_is_up(dashboard: FakeDashboard, context: Any, deferrable: bool, flag: str) -> None:
    with pytest.raises(AirflowSkipException):
        run(sensor(free_resources={"GPU": 1}, timeout=0.3, deferrable=deferrable, **{flag: True}), context)


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize(("status", "error"), [(401, errors.RayAuthError), (404, errors.RayNotADashboard)])
def test_fails_at_once_when_a_cluster_refuses(
    dashboard: FakeDashboard,
    other: FakeDashboard,
    context: Any,
    deferrable: bool,
    status: int,
    error: type[Exception],
) -> None:
    other.fail(status, path="/api/version", times=2)
    task = sensor(conn_id=["fake", "other"], policy="any", deferrable=deferrable)
    with pytest.raises(error, match=f"connection 'other': GET .*{status}"):
        task.execute(context)
    with pytest.raises(AirflowSkipException, match="connection 'other'"):
        sensor(conn_id="other", soft_fail=True, deferrable=deferrable).execute(context)


def test_fails_when_a_cluster_refuses_in_the_triggerer(dashboard: FakeDashboard, context: Any) -> None:
    dashboard.fail(503, path="/api/version")
    dashboard.fail(403, path="/api/version")
    with pytest.raises(errors.RayAuthError, match="connection 'fake'.*403"):
        run(sensor(deferrable=True), context)


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_wrong_connection_fails_even_softly(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    connect(monkeypatch, "odd", dashboard, extra={"verify": "no"})
    with pytest.raises(errors.RayConfigError, match="connection 'odd'"):
        sensor(conn_id=["fake", "odd"], soft_fail=True, deferrable=deferrable).execute(context)
    with pytest.raises(AirflowNotFoundException, match="nowhere"):
        sensor(conn_id=["fake", "nowhere"], soft_fail=True, deferrable=deferrable).execute(context)
    assert not dashboard.requests


def test_a_connection_that_is_gone_in_the_triggerer(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.nodes[0]["state"] = "DEAD"
    task = sensor(deferrable=True)
    trigger = task._trigger(["nowhere"], 1)
    monkeypatch.setattr(task, "_trigger", lambda conn_ids, required: trigger)
    with pytest.raises(errors.RayTriggerError, match="AirflowNotFoundException.*nowhere"):
        run(task, context)


def test_gives_the_worker_back_between_two_looks(dashboard: FakeDashboard, context: Any) -> None:
    context["ti"].get_first_reschedule_date = lambda context: None
    dashboard.used["CPU"] = 2.0
    task = sensor(free_resources={"CPU": 1}, mode="reschedule")
    with pytest.raises(AirflowRescheduleException):
        task.execute(context)
    dashboard.used.clear()
    assert set(task.execute(context)) == {"fake"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conn_id": ""}, "conn_id: got ''"),
        ({"conn_id": []}, "conn_id: got an empty list"),
        ({"conn_id": ["fake", None]}, "conn_id: got None"),
        ({"conn_id": ["fake", "fake"]}, "conn_id: got 'fake' twice"),
        ({"policy": "most"}, "policy: got 'most'"),
        ({"policy": 2}, "policy: got 2; expected 'all', 'any' or a number from 1 to 1, the number of clusters"),
        ({"conn_id": "site=a,site=b"}, "conn_id: got 'site' twice"),
        ({"conn_id": "site=nowhere"}, "conn_id: got the selector 'site=nowhere', which matches none of"),
        ({"free_resources": {"CPU": "x"}}, r"free_resources\['CPU'\]: got 'x'"),
        ({"max_running_jobs": -1}, "max_running_jobs: got -1"),
    ],
)
def test_bad_arguments_are_named(
    dashboard: FakeDashboard, context: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.RayConfigError, match=message):
        sensor(**arguments).execute(context)
    assert not dashboard.requests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conn_id": []}, "conn_id: got an empty list"),
        ({"conn_id": "a,b,a"}, "conn_id: got 'a' twice"),
        ({"conn_id": "site=a,gpu"}, "conn_id: got 'gpu'"),
        ({"policy": "most"}, "policy: got 'most'; expected 'all', 'any' or a number from 1 to 1"),
        ({"policy": 3, "conn_id": "a,b"}, "policy: got 3; expected 'all', 'any' or a number from 1 to 2"),
        ({"policy": 0, "conn_id": "site=a"}, "policy: got 0; expected 'all', 'any' or a number of at least 1"),
    ],
)
def test_what_is_literal_and_wrong_is_named_in_the_dag_file(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.RayConfigError, match=message):
        sensor(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"policy": 3, "conn_id": "{{ params.clusters }}"},
        {"policy": "{{ params.policy }}"},
        {"policy": 3, "conn_id": "site=a"},
        {"poke_interval": timedelta(seconds=5), "timeout": timedelta(hours=1)},
    ],
)
def test_what_only_a_run_can_tell_is_left_to_it(arguments: dict[str, Any]) -> None:
    assert sensor(**arguments).poke_interval in (0.1, 5.0)


@MODES
@pytest.mark.parametrize("given", ["fake, other", "['fake', 'other']", "place=here"])
def test_clusters_in_every_form(
    dashboard: FakeDashboard,
    other: FakeDashboard,
    context: Any,
    monkeypatch: pytest.MonkeyPatch,
    deferrable: bool,
    given: str,
) -> None:
    for conn_id, fake in {"fake": dashboard, "other": other}.items():
        connect(monkeypatch, conn_id, fake, extra={"labels": "place=here"})
        fake.used["CPU"] = 2.0
        later(fake, fake.used.clear)
    task = sensor(conn_id=given, free_resources={"CPU": 1}, deferrable=deferrable)
    assert set(run(task, context)) == {"fake", "other"}


def test_labels_may_change_while_the_triggerer_waits(
    dashboard: FakeDashboard, other: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict is on the clusters that were waited for."""
    for conn_id, fake in {"fake": dashboard, "other": other}.items():
        connect(monkeypatch, conn_id, fake, extra={"labels": "place=here"})
    dashboard.used["CPU"] = 2.0
    task = sensor(conn_id="place=here", free_resources={"CPU": 1}, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    connect(monkeypatch, "third", dashboard, extra={"labels": "place=here"})
    dashboard.used.clear()
    assert set(resume(task, context, deferred.value)) == {"fake", "other"}


def test_can_be_mapped_and_stored() -> None:
    """``resources``, which Airflow has for something else, would break both."""
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("d", schedule=None) as dag:
        sensor(free_resources={"CPU": 4})
        RayClusterSensor.partial(task_id="mapped", free_resources={"CPU": 4}).expand(conn_id=["a", "b"])
    stored = DagSerialization.to_dict(dag)
    assert {task["__var"]["task_id"] for task in stored["dag"]["tasks"]} == {"wait", "mapped"}
