"""Which cluster is chosen, of those that there are, and what is said about the others."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_ray.client import errors, pacing
from airflow_provider_ray.client.api.capacity import Capacity
from airflow_provider_ray.clusters import selection
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.sensors.cluster import RayClusterSensor
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.conftest import Attempts, connect

Clusters = dict[str, FakeDashboard]
ALL = ["a", "b", "c"]


def chosen(strategy: str, context: Any, conn_ids: list[str] = ALL, **options: Any) -> str:
    return selection.choose(conn_ids, strategy, context, **options).conn_id


def capacity(**known: Any) -> Capacity:
    nothing = {"ray_version": "2.60.0", "python_version": None, "session_name": None, "head_alive": True, "nodes": 1}
    whole = {"total": {"CPU": 10.0}, "free": {"CPU": 10.0}, "pending_demands": 0, "running_jobs": 0, "pending_jobs": 0}
    return Capacity(**{**nothing, **whole, **known})


@pytest.fixture
def labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections a to c with labels; nothing answers at their addresses."""
    for conn_id, labels in {"a": "site=hpc,gpu=true", "b": "site=hpc", "c": "site=lab"}.items():
        fields = {"conn_type": "ray", "host": "127.0.0.1", "extra": {"labels": labels}}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))


class LazySequence(Sequence[Any]):
    """What the output of a mapped task is in a run."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]


@pytest.mark.parametrize(
    ("given", "conn_ids"),
    [
        ("a", ["a"]),
        ("7", ["7"]),
        (["a", "b"], ["a", "b"]),
        (("a",), ["a"]),
        (LazySequence("b", "a"), ["b", "a"]),
        ("a, b,", ["a", "b"]),
        ("['a', 'b']", ["a", "b"]),
        ('["a"]', ["a"]),
        ("site=hpc", ["a", "b"]),
        (" site=hpc, gpu=true ", ["a"]),
    ],
)
def test_clusters_in_every_form(labelled: None, given: Any, conn_ids: list[str]) -> None:
    assert selection.resolve(given) == conn_ids


WRONG = [
    ([], "an empty list"),
    ("[]", "an empty list"),
    ("", "''"),
    (" , ", "' , '"),
    (None, "None of type NoneType"),
    (7, "7 of type int"),
    ({"a": 1}, "{'a': 1} of type dict"),
    (Path("a"), "PosixPath('a') of type PosixPath"),
    (["a", 7], "7 at position 2"),
    (["a", ""], "'' at position 2"),
    (["site=hpc", "a"], "'site=hpc' at position 1"),
    (["a,b"], "'a,b' at position 1"),
    (["a", "b", "a"], "'a' twice"),
    ("a,b,a", "'a' twice"),
    ("site=hpc,gpu", "'gpu'"),
    ("site=hpc,site=lab", "'site' twice"),
    ("site=", "'site=' without a value"),
]


@pytest.mark.parametrize(("given", "got"), WRONG)
def test_what_names_no_clusters_is_refused_in_the_dag_file_and_in_a_run(given: Any, got: str) -> None:
    for read in (selection.resolve, selection.resolve_one, selection.check_clusters):
        with pytest.raises(errors.RayConfigError) as caught:
            read(given, "clusters")
        assert (caught.value.field, caught.value.got) == ("clusters", got)


def test_labels_that_no_cluster_has(labelled: None) -> None:
    with pytest.raises(errors.RayConfigError, match=r"conn_id: got the selector 'site=x', which matches none of \['a'"):
        selection.resolve("site=x")


@pytest.mark.parametrize("given", ["a", ["a"], "['a']", "gpu=true"])
def test_one_cluster_in_every_form(labelled: None, given: Any) -> None:
    assert selection.resolve_one(given) == "a"


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (["a", "b"], "['a', 'b']"),
        ("a,b", "'a,b', which stands for ['a', 'b']"),
        ("site=hpc", "'site=hpc', which stands for ['a', 'b']"),
    ],
)
def test_several_clusters_where_one_is_needed(labelled: None, given: Any, got: str) -> None:
    with pytest.raises(errors.RayConfigError) as caught:
        selection.resolve_one(given)
    assert (caught.value.field, caught.value.got, caught.value.expected) == ("conn_id", got, "exactly one cluster")


@pytest.mark.parametrize(("given", "number"), [("a", 1), ("a,b", 2), (["a", "b", "c"], 3), ("site=nowhere", None)])
def test_the_dag_file_knows_how_many_clusters_are_named(given: Any, number: int | None) -> None:
    """Airflow is not asked, so labels that no cluster has are not found out."""
    assert selection.check_clusters(given) == number


def test_several_clusters_where_one_is_needed_are_refused_in_the_dag_file() -> None:
    selection.check_clusters("site=hpc", one=True)
    selection.check_clusters("a", one=True)
    with pytest.raises(errors.RayConfigError, match="expected exactly one cluster"):
        selection.check_clusters(["a", "b"], one=True)


def test_what_only_a_run_can_tell_is_left_to_it() -> None:
    with DAG("d", schedule=None, params={"clusters": []}) as dag:
        task = RayClusterSensor(task_id="t")
    templates = ["{{ params.clusters }}", ["{{ params.a }}", "{{ params.a }}"], dag.param("clusters"), task.output]
    for given in (*templates, lambda context, jinja_env: ["a"]):
        assert selection.check_clusters(given, one=True) is None


@pytest.mark.parametrize("strategy", ["fastest", None, ["first_healthy"]])
def test_an_unknown_strategy_is_named(strategy: Any) -> None:
    with pytest.raises(errors.RayConfigError, match="strategy: got .*; expected one of .*'least_loaded'"):
        selection.check_strategy(strategy)


@pytest.mark.parametrize("strategy", selection.STRATEGIES)
def test_the_only_cluster_is_not_asked(clusters: Clusters, context: Any, strategy: str) -> None:
    assert chosen(strategy, context, ["b"]) == "b"
    assert not clusters["b"].requests


def test_the_first_healthy_cluster_in_the_given_order(clusters: Clusters, context: Any) -> None:
    assert chosen("first_healthy", context, ["c", "a", "b"]) == "c"
    clusters["c"].fail("close", times=100)
    clusters["a"].nodes[0]["state"] = "DEAD"
    assert chosen("first_healthy", context, ["c", "a", "b"]) == "b"


def test_a_cluster_that_resets_one_connection_is_healthy(clusters: Clusters, context: Any) -> None:
    clusters["a"].fail("close")
    assert chosen("first_healthy", context) == "a"


def test_clusters_that_hang_cost_the_time_of_one(
    clusters: Clusters, context: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pacing, "ANSWER_SECONDS", 1.0)
    for conn_id in ("a", "b"):
        clusters[conn_id].fail("hang", times=100)
    started = time.monotonic()
    assert chosen("first_healthy", context) == "c"
    assert time.monotonic() - started < 2.0
    assert "Skipping cluster b: " in caplog.text
    assert "no complete response within 1 s" in caplog.text


def test_no_healthy_cluster_is_an_error_that_names_each(clusters: Clusters, context: Any) -> None:
    clusters["a"].fail(503, times=100)
    clusters["b"].nodes[0]["state"] = "DEAD"
    clusters["c"].fail(200, times=100, text="<html>welcome</html>")
    with pytest.raises(errors.RayClusterUnavailable) as caught:
        chosen("first_healthy", context)
    said = str(caught.value)
    assert all(reason in said for reason in ("'a': GET ", "503", "'b': ", "its head node is dead", "'c': ", "JSON"))
    assert caught.value.retry_helps


def test_a_cluster_that_refuses_the_token_is_passed_over_and_warned_about(
    context: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeDashboard(token="wanted") as closed, FakeDashboard() as opened:
        connect(monkeypatch, "closed", closed)
        connect(monkeypatch, "opened", opened)
        assert chosen("first_healthy", context, ["closed", "opened"]) == "opened"
    assert "Skipping cluster closed" in caplog.text
    assert "401" in caplog.text


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        (None, AirflowNotFoundException, "wrong"),
        ('{"conn_type": "http", "host": "x"}', errors.RayConfigError, "'wrong' of type 'http'"),
        ('{"conn_type": "ray", "host": "ray://x"}', errors.RayConfigError, "connection 'wrong', host"),
        ('{"conn_type": "ray", "host": "https://x", "extra": {"ca_cert": "/no"}}', errors.RayConfigError, "ca_cert"),
    ],
)
def test_a_connection_that_cannot_work_is_an_error_though_another_would(
    clusters: Clusters, context: Any, monkeypatch: pytest.MonkeyPatch, fields: Any, kind: type[Exception], message: str
) -> None:
    if fields:
        monkeypatch.setenv("AIRFLOW_CONN_WRONG", fields)
    with pytest.raises(kind, match=message):
        chosen("first_healthy", context, ["a", "wrong"])


def test_a_cluster_that_failed_comes_last_and_the_latest_very_last(clusters: Clusters, context: Any) -> None:
    assert chosen("first_healthy", context, failed_on=["a"]) == "b"
    assert chosen("first_healthy", context, failed_on=["b", "c", "a"]) == "b"
    clusters["b"].fail(503, times=100)
    assert chosen("round_robin", context, failed_on=["b", "c", "a"]) == "c"


def test_the_least_loaded_cluster_is_the_one_with_fewest_jobs_of_equal_ones(clusters: Clusters, context: Any) -> None:
    for conn_id, number in {"a": 2, "b": 1, "c": 1}.items():
        clusters[conn_id].default_outcome = Outcome(ends_after=None)
        for _ in range(number):
            RayHook(conn_id).submit_job("sleep 1")
    assert chosen("least_loaded", context) == "b"
    clusters["b"].fail(503, times=100)
    assert chosen("least_loaded", context) == "c"


def test_the_least_loaded_cluster_is_the_one_with_most_room(clusters: Clusters, context: Any) -> None:
    clusters["a"].used = {"CPU": 1.5}
    clusters["b"].has_status = False
    clusters["c"].used = {"CPU": 1.0}
    assert chosen("least_loaded", context) == "c"
    clusters["c"].fail(503, times=100)
    assert chosen("least_loaded", context) == "a"


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"free": {"CPU": 5.0}}, {"free": {"CPU": 3.0}}),
        ({"free": {"CPU": 50.0}, "total": {"CPU": 100.0}}, {"free": {"CPU": 4.0}}),
        ({"free": {"CPU": 5.0}, "pending_demands": 2}, {"free": {"CPU": 3.0}}),
        ({"free": {"CPU": 5.0}}, {"free": {"CPU": 5.5}, "pending_demands": 1}),
        ({"running_jobs": 3}, {"running_jobs": 2, "pending_jobs": 2}),
        ({"free": {"CPU": 5.2}}, {"free": {"CPU": 5.1}}),
        ({"free": {"CPU": 0.0}, "pending_demands": 9, "running_jobs": 9}, {"free": None}),
        ({"free": {"CPU": 0.0}}, {"free": {}}),
        ({"free": {"CPU": 0.0}}, {"total": {"memory": 1.0}, "free": {"memory": 1.0}}),
        ({"free": {"CPU": 2.0}}, {"total": {"CPU": 10.0, "GPU": 2.0}, "free": {"CPU": 10.0, "GPU": 0.0}}),
        ({}, {"pending_demands": None}),
        ({"running_jobs": 9}, {"running_jobs": None}),
    ],
)
def test_what_makes_a_cluster_less_loaded(
    clusters: Clusters,
    context: Any,
    monkeypatch: pytest.MonkeyPatch,
    better: dict[str, Any],
    worse: dict[str, Any],
) -> None:
    capacities = {"a": capacity(**worse), "b": capacity(**better), "c": capacity(**worse)}
    assert selection.STRATEGIES["least_loaded"](ALL, capacities, context) == "b"
    assert selection.STRATEGIES["least_loaded"](["a", "c"], capacities, context) == "a"


def test_round_robin_goes_round_by_map_index_and_starts_where_the_run_says(
    clusters: Clusters, attempts: Attempts
) -> None:
    def order(run_id: str) -> list[str]:
        contexts = [attempts.context(map_index=index) for index in range(6)]
        for context in contexts:
            context["ti"].run_id = run_id
        return [chosen("round_robin", context) for context in contexts]

    first = order("run 1")
    assert sorted(first[:3]) == ALL
    assert first[3:] == first[:3]
    assert first == order("run 1")
    assert len({order(f"run {number}")[0] for number in range(10)}) > 1


def test_round_robin_leaves_out_who_is_not_healthy(clusters: Clusters, attempts: Attempts) -> None:
    clusters["b"].fail(503, times=1000)
    turns = [chosen("round_robin", attempts.context(map_index=index)) for index in range(4)]
    assert turns in (["a", "c", "a", "c"], ["c", "a", "c", "a"])


def test_a_cluster_whose_jobs_are_unknown_counts_as_the_most_loaded_with_a_reason(
    clusters: Clusters, context: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pacing, "DETAIL_SECONDS", 0.3)
    clusters["a"].fail("hang", path="/api/v0/jobs", times=9)
    caplog.set_level("INFO")
    assert chosen("least_loaded", context) == "b"
    assert "a counts as fully loaded by its jobs, which are unknown: no response within 0.3 s" in caplog.text
    assert chosen("least_loaded", context, ["a"]) == "a"
