"""Which cluster is chosen, of those that there are, and what is said about the others."""

from __future__ import annotations

import time
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_ray.client import errors, pacing
from airflow_provider_ray.client.api.capacity import Capacity
from airflow_provider_ray.clusters import selection
from airflow_provider_ray.hooks.ray import RayHook
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "conn_id: got an empty list"),
        (["a", "b", "a"], "conn_id: got 'a' twice"),
        (["a", 3], "conn_id: got 3 at place 2"),
        (["a", ""], "conn_id: got '' at place 2"),
        ("", "conn_id: got '' at place 1"),
        ({"a": 1}, "conn_id: got .* of type dict"),
        (None, "conn_id: got None of type NoneType"),
    ],
)
def test_what_is_no_list_of_connections_is_named(given: Any, message: str) -> None:
    with pytest.raises(errors.RayConfigError, match=f"{message}.*; expected a connection id or a list of different"):
        selection.connections(given)


def test_one_connection_is_a_list_of_one() -> None:
    assert selection.connections("a") == selection.connections(["a"]) == ("a",)


@pytest.mark.parametrize("given", ["['a', 'b']", '["a", "b"]', ("a", "b")])
def test_a_list_may_be_a_rendered_template(given: Any) -> None:
    assert selection.connections(given) == ("a", "b")


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
