"""Planning a fan-out: who takes part, and who gets what."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import pytest

from airflow_provider_ray.client.errors import (
    RayAuthError,
    RayClusterUnavailable,
    RayConfigError,
    RayJobStopping,
)
from airflow_provider_ray.fan_out.plan import (
    Shard,
    Work,
    ask_participants,
    give_up_job,
    plan_shards,
    replan_shards,
)
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.conftest import connect

Clusters = Callable[..., list[FakeDashboard]]


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clusters]:
    """Make fakes with so many CPUs behind the connections c1, c2 and so on."""
    with ExitStack() as running:

        def start(*cpus: float) -> list[FakeDashboard]:
            fakes = []
            for number, each in enumerate(cpus, start=1):
                fake = running.enter_context(FakeDashboard())
                fake.session_name = f"session_{number}"
                fake.nodes[0]["resources_total"] = {"CPU": each} if each else {}
                connect(monkeypatch, f"c{number}", fake)
                fakes.append(fake)
            return fakes

        yield start


def shards_of(conn_ids: list[str], work: Work, weights: Any = None, capacity: str = "total") -> dict[str, Any]:
    participants = ask_participants(conn_ids)
    shards = plan_shards(work, participants, participants.shares({"CPU": 1} if weights is None else weights, capacity))
    assert len({shard.application for shard in shards}) == len(shards)
    return {shard.conn_id: shard for shard in shards}


@pytest.mark.parametrize(
    ("work", "field"),
    [
        ({}, "amount and items"),
        ({"amount": 1, "items": [1]}, "amount and items"),
        ({"items": "abc"}, "items"),
        ({"items": {"a": 1}}, "items"),
        ({"items": []}, "items"),
        ({"items": "[]"}, "items"),
        ({"items": [1], "sizes": 5}, "sizes"),
        ({"amount": "0"}, "amount"),
        ({"amount": ""}, "amount"),
        ({"amount": False}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"amount": "many"}, "amount"),
    ],
)
def test_work_that_is_none_is_named(work: dict[str, Any], field: str) -> None:
    with pytest.raises(RayConfigError) as caught:
        Work.given(**{"amount": None, "offset": 0, "items": None, "sizes": None, **work})
    assert caught.value.field == field


def test_a_range_is_divided_by_what_the_clusters_have(clusters: Clusters) -> None:
    clusters(4, 2, 2)
    shards = shards_of(["c1", "c2", "c3"], Work.given("400", "7", None, None))
    assert [(shard.offset, shard.amount, shard.share) for shard in shards.values()] == [
        (7, 200, 0.5),
        (207, 100, 0.25),
        (307, 100, 0.25),
    ]
    assert json.loads(json.dumps(asdict(shards["c1"])))["items"] is None


def test_items_are_divided_by_their_sizes(clusters: Clusters) -> None:
    clusters(3, 1)
    shards = shards_of(["c1", "c2"], Work.given(None, 0, "['c', 'e', 'h', 'd']", [3, 5, 8, 4]))
    assert [(shard.items, shard.amount) for shard in shards.values()] == [(["c", "e", "h"], 3), (["d"], 1)]


def test_without_weights_the_shares_are_equal(clusters: Clusters) -> None:
    clusters(4, 1)
    participants = ask_participants(["c1", "c2"])
    assert participants.shares(None, "free") == participants.shares("None", "free") == {"c1": 0.5, "c2": 0.5}


def test_a_cluster_without_the_resource_gets_no_shard(clusters: Clusters) -> None:
    clusters(4, 0)
    participants = ask_participants(["c1", "c2"])
    shards = plan_shards(Work(amount=10), participants, participants.shares({"CPU": 1}, "total"))
    assert [(shard.conn_id, shard.amount) for shard in shards] == [("c1", 10)]
    assert participants.without_work(shards) == {"idle": ["c2"], "unavailable": {}}


def test_a_resource_that_nobody_has_cannot_divide(clusters: Clusters) -> None:
    clusters(4)
    with pytest.raises(RayConfigError, match="weights: got {'GPU': 1}; expected a resource that at least one"):
        ask_participants(["c1"]).shares({"GPU": 1}, "total")


def test_items_in_json_are_read_too() -> None:
    assert Work.given(None, 0, '[true, null, {"a": 1}]', None).items == [True, None, {"a": 1}]


def test_a_secret_that_a_cluster_repeats_is_not_in_the_xcom(clusters: Clusters) -> None:
    from airflow.sdk.log import mask_secret

    mask_secret("repeated-token")
    (first,) = clusters(2)
    first.fail(500, times=100, text="you sent Authorization: Bearer repeated-token")
    assert "repeated-token" not in json.dumps(ask_participants(["c1"]).without_work([]))


def test_a_cluster_that_does_not_answer_gets_nothing(clusters: Clusters) -> None:
    _, second = clusters(2, 2)
    second.fail(503, times=100)
    participants = ask_participants(["c1", "c2"])
    shards = plan_shards(Work(amount=10), participants, participants.shares({"CPU": 1}, "total"))
    assert [(shard.conn_id, shard.amount) for shard in shards] == [("c1", 10)]
    assert list(participants.without_work(shards)["unavailable"]) == ["c2"]
    with pytest.raises(RayClusterUnavailable):
        participants.raise_fault()


def test_a_cluster_whose_head_is_dead_gets_nothing(clusters: Clusters) -> None:
    (first,) = clusters(2)
    first.nodes[0]["state"] = "DEAD"
    participants = ask_participants(["c1"])
    assert participants.without_work([])["unavailable"]["c1"].endswith("its head node is dead")
    with pytest.raises(RayClusterUnavailable):
        participants.shares(None, "total")


def test_refused_credentials_end_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeDashboard(token="right") as fake:
        connect(monkeypatch, "c1", fake, password="wrong")
        with pytest.raises(RayAuthError):
            ask_participants(["c1"])


def test_two_connections_to_one_cluster_are_refused_unless_allowed(
    monkeypatch: pytest.MonkeyPatch, clusters: Clusters
) -> None:
    (first,) = clusters(2)
    connect(monkeypatch, "again", first)
    participants = ask_participants(["c1", "again"])
    with pytest.raises(
        RayConfigError, match=r"\['c1', 'again'\], which lead to the same cluster \(session session_1\)"
    ):
        participants.check(allow_same_cluster=False, serving=True)
    participants.check(allow_same_cluster=True, serving=True)


def test_two_clusters_with_one_serve_address_are_refused_if_they_serve(
    monkeypatch: pytest.MonkeyPatch, clusters: Clusters
) -> None:
    first, second = clusters(2, 2)
    connect(monkeypatch, "c2", second, extra={"serve_url": first.serve_url})
    participants = ask_participants(["c1", "c2"])
    with pytest.raises(
        RayConfigError, match=r"\['c1', 'c2'\], whose Serve is expected at the same address 127\.0\.0\.1"
    ):
        participants.check(allow_same_cluster=False, serving=True)
    participants.check(allow_same_cluster=False, serving=False)


def test_clusters_behind_one_gateway_differ_by_their_paths(monkeypatch: pytest.MonkeyPatch, clusters: Clusters) -> None:
    for number, fake in enumerate(clusters(2, 2), start=1):
        connect(monkeypatch, f"c{number}", fake, extra={"serve_url": f"https://gateway.example/{number}/"})
    ask_participants(["c1", "c2"]).check(allow_same_cluster=False, serving=True)


@pytest.mark.parametrize(("first", "second"), [("https://g", "https://g:443"), ("http://g:80/", "http://g")])
def test_a_port_that_goes_without_saying_is_the_same(
    monkeypatch: pytest.MonkeyPatch, clusters: Clusters, first: str, second: str
) -> None:
    for name, fake, address in zip(("c1", "c2"), clusters(2, 2), (first, second), strict=True):
        connect(monkeypatch, name, fake, extra={"serve_url": address})
    with pytest.raises(RayConfigError, match="whose Serve is expected at the same address g:"):
        ask_participants(["c1", "c2"]).check(allow_same_cluster=False, serving=True)


@pytest.mark.parametrize("items", [None, ["a", "b", "c", "d"]])
def test_a_dead_shard_is_divided_anew(clusters: Clusters, items: list[str] | None) -> None:
    clusters(3, 1)
    work = {"amount": 40, "offset": 100} if items is None else {"amount": 4, "items": items}
    dead = Shard(conn_id="gone", application="x", serve_port=8000, share=0.5, **work)
    participants = ask_participants(["c1", "c2"])
    parts = replan_shards(dead, participants, participants.shares({"CPU": 1}, "total"))
    assert [(part.conn_id, part.amount, part.share) for part in parts] == [
        ("c1", dead.amount * 3 // 4, 0.375),
        ("c2", dead.amount // 4, 0.125),
    ]
    assert {part.taken_over_from for part in parts} == {"gone"}
    if items is None:
        assert [part.offset for part in parts] == [100, 130]
    else:
        assert sorted(item for part in parts for item in part.items or ()) == items


def test_a_job_that_is_given_up_is_stopped_or_lost(clusters: Clusters) -> None:
    from airflow_provider_ray.hooks.ray import RayHook

    (first,) = clusters(2)
    first.default_outcome = Outcome(ends_after=None)
    RayHook("c1").submit_job("sleep", submission_id="active")
    give_up_job("c1", "active")
    assert first.jobs["active"].status == "STOPPED"
    give_up_job("c1", "never-there")
    give_up_job("c1", None)
    first.outcomes["stubborn"] = Outcome(ends_after=None, stop_after=None)
    RayHook("c1").submit_job("sleep", submission_id="stubborn")
    with pytest.raises(RayJobStopping):
        give_up_job("c1", "stubborn")


@pytest.mark.parametrize("weights", [{"TPU": 1}, {"CPU": 1, "TPU": 1}, {"GPU": 1}])
def test_a_resource_that_only_an_unavailable_cluster_may_have_is_waited_for(
    clusters: Clusters, weights: dict[str, float]
) -> None:
    _, second = clusters(2, 2)
    second.fail(503, times=100)
    with pytest.raises(RayClusterUnavailable, match="503") as caught:
        ask_participants(["c1", "c2"]).shares(weights, "total")
    assert caught.value.retry_helps


def test_weights_that_cannot_work_are_final_even_while_a_cluster_is_unavailable(clusters: Clusters) -> None:
    _, second = clusters(2, 2)
    second.fail(503, times=100)
    with pytest.raises(RayConfigError, match="weights"):
        ask_participants(["c1", "c2"]).shares({"TPU": "many"}, "total")
