"""Looking at many clusters, and what counts as room."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ray.client import errors, pacing
from airflow_provider_ray.client.api.capacity import Capacity
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.clusters.survey import Findings, Room, find, survey, wait_for_room
from airflow_provider_ray.client.config import ClusterConfig
from tests.fake_dashboard import FakeDashboard

pytestmark = pytest.mark.anyio

FREE = {"CPU": 2.0, "memory": 1e9, "odd": 0.5}
CAPACITY = Capacity(
    ray_version="2.60.0",
    python_version=None,
    session_name=None,
    head_alive=True,
    nodes=1,
    total={**FREE, "CPU": 4.0, "silent": 1.0},
    free=FREE,
    pending_demands=0,
    running_jobs=3,
    pending_jobs=1,
)


@pytest.fixture
def fakes() -> Iterator[list[FakeDashboard]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FakeDashboard()) for _ in range(3)]


def configs(fakes: list[FakeDashboard]) -> dict[str, ClusterConfig]:
    return {f"c{number}": ClusterConfig(url=fake.url) for number, fake in enumerate(fakes)}


def nobody() -> ClusterConfig:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return ClusterConfig(url=f"http://127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize(
    ("room", "lack"),
    [
        ({}, None),
        ({"free_resources": {"CPU": 2, "odd": 0.5}, "max_pending_jobs": 1, "max_running_jobs": 3}, None),
        ({"free_resources": {"CPU": 2.5}}, "2 of 4 CPU free, 2.5 required"),
        ({"free_resources": {"GPU": 1}}, "it has no GPU"),
        ({"free_resources": {"silent": 1}}, "its free silent is unknown"),
        ({"max_pending_jobs": 0}, "1 pending jobs, at most 0 allowed"),
        ({"max_running_jobs": 2}, "3 running jobs, at most 2 allowed"),
        (
            {"free_resources": {"CPU": 3}, "max_running_jobs": 0},
            "2 of 4 CPU free, 3 required, 3 running jobs, at most 0 allowed",
        ),
    ],
)
def test_what_a_cluster_lacks(room: dict[str, Any], lack: str | None) -> None:
    assert Room(**room).why_not(CAPACITY) == lack


@pytest.mark.parametrize(
    ("unknown", "room", "lack"),
    [
        ({"head_alive": False, "free": {"CPU": 0.0}}, {}, "its head node is dead"),
        ({"free": None}, {"free_resources": {"CPU": 0.5}}, "its free CPU is unknown"),
        ({"pending_jobs": None}, {"max_pending_jobs": 99}, "its pending jobs are unknown"),
        ({"running_jobs": None}, {"max_running_jobs": 99}, "its running jobs are unknown"),
        (
            {"running_jobs": None, "unknown": {"jobs": "no response within 5 s"}},
            {"max_running_jobs": 99},
            "its running jobs are unknown (no response within 5 s)",
        ),
        (
            {"free": None, "unknown": {"usage": "Ray has not reported it yet"}},
            {"free_resources": {"CPU": 0.5}},
            "its free CPU is unknown (Ray has not reported it yet)",
        ),
    ],
)
def test_unknown_is_never_room(unknown: dict[str, Any], room: dict[str, Any], lack: str) -> None:
    assert Room(**room).why_not(replace(CAPACITY, **unknown)) == lack


def test_fields_from_templates() -> None:
    room = Room.from_fields(free_resources={"CPU": "4", "odd": "0.5"}, max_pending_jobs="0", max_running_jobs="")
    assert room == Room(free_resources={"CPU": 4, "odd": 0.5}, max_pending_jobs=0)
    assert Room.from_fields(**room.to_json()) == room
    assert Room.from_fields() == Room()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"free_resources": "CPU=4"}, "free_resources: got 'CPU=4'; expected a number of 0 or more for each"),
        ({"free_resources": {"CPU": "many"}}, r"free_resources\['CPU'\]: got 'many'"),
        ({"free_resources": {"CPU": -1}}, r"free_resources\['CPU'\]: got -1"),
        ({"free_resources": {"CPU": None}}, r"free_resources: got 'CPU': None"),
        ({"max_pending_jobs": 1.5}, "max_pending_jobs: got 1.5"),
        ({"max_running_jobs": -1}, "max_running_jobs: got -1"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.RayConfigError, match=message):
        Room.from_fields(**fields)


async def test_clusters_that_are_away_or_hang_or_refuse_delay_nobody(
    fakes: list[FakeDashboard], monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes[0].fail("hang", path="/api/version")
    fakes[1].fail(401, path="/api/version")
    given = {**configs(fakes), "nobody": nobody(), "tls": ClusterConfig(url="https://127.0.0.1:1", verify="/none.pem")}
    started = time.monotonic()
    monkeypatch.setattr(pacing, "ANSWER_SECONDS", 2.0)
    answers = await survey(given)
    assert time.monotonic() - started < 8
    assert list(answers) == ["c0", "c1", "c2", "nobody", "tls"]
    assert [type(answer) for answer in answers.values()] == [
        errors.RayClusterUnavailable,
        errors.RayAuthError,
        Capacity,
        errors.RayClusterUnavailable,
        errors.RayConfigError,
    ]
    assert str(answers["c0"]) == f"{fakes[0].url}: no complete response within 2 s"


async def test_a_look_at_some_that_are_ready_and_some_that_are_not(fakes: list[FakeDashboard]) -> None:
    fakes[1].used["CPU"] = 1.5
    fakes[2].fail(503, path="/api/version")
    found = find(await survey(configs(fakes)), Room(free_resources={"CPU": 1}))
    assert set(found.ready) == {"c0"}
    assert found.ready["c0"]["free"]["CPU"] == 2.0
    assert found.waiting["c1"] == "0.5 of 2 CPU free, 1 required"
    assert "503" in found.waiting["c2"]
    assert found.fault is None
    assert [found.is_over(number) for number in (1, 2)] == [True, False]
    assert found.lacks.startswith("c1: 0.5 of 2 CPU free, 1 required; c2: ")
    assert Findings.from_json(found.to_json()) == found


async def test_a_fault_names_its_connection_and_ends_the_wait(fakes: list[FakeDashboard]) -> None:
    fakes[1].fail(403, path="/api/v0/nodes")
    found = find(await survey(configs(fakes)), Room())
    assert isinstance(found.fault, errors.RayAuthError)
    assert str(found.fault).startswith("connection 'c1': GET ")
    assert found.is_over(3)
    back = Findings.from_json(found.to_json())
    assert (type(back.fault), str(back.fault)) == (type(found.fault), str(found.fault))


async def test_a_file_that_cannot_be_read_is_a_fault_with_its_connection(tmp_path: Path) -> None:
    config = ClusterConfig(url="https://127.0.0.1:1", verify=str(tmp_path / "none.pem"))
    found = find(await survey({"a": config}), Room())
    with pytest.raises(errors.RayConfigError, match="connection 'a': ca_cert: got .*none.pem"):
        found.result(1)


async def test_waiting_ends_with_what_was_found_last(fakes: list[FakeDashboard], caplog: Any) -> None:
    """A cluster that hangs holds nobody up for longer than a look may take."""
    fakes[0].used["CPU"] = 2.0
    room, logger = Room(free_resources={"CPU": 1}), logging.getLogger("wait")
    caplog.set_level(logging.INFO)
    async with RayClient(ClusterConfig(url=fakes[0].url)) as client:
        found = await wait_for_room({"c0": client}, room, required=1, poll_interval=0.1, timeout=0.5, logger=logger)
    assert caplog.messages.count("Not ready yet: c0: 0 of 2 CPU free, 1 required") == 1
    assert not found.ready
    with pytest.raises(
        errors.RayClusterUnavailable, match="^0 of the clusters were ready in time, 1 required; c0: 0 of"
    ):
        found.result(1)


async def test_a_cluster_that_hangs_is_waited_for(fakes: list[FakeDashboard], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "ANSWER_SECONDS", 1.0)
    fakes[0].fail("hang", path="/api/version")
    async with RayClient(ClusterConfig(url=fakes[0].url)) as client:
        found = await wait_for_room(
            {"c0": client}, Room(), required=1, poll_interval=0.1, timeout=20, logger=logging.getLogger("wait")
        )
    assert set(found.ready) == {"c0"}
    assert len(fakes[0].asked("GET", "/api/version")) > 1


@pytest.mark.parametrize("resources", [{"CPU": None}, {"CPU": float("nan")}, {"CPU": "many"}, ["CPU"]])
async def test_a_cluster_that_says_odd_things_spoils_nothing_for_others(
    fakes: list[FakeDashboard], resources: Any
) -> None:
    fakes[0].nodes[0]["resources_total"] = resources
    answers = list((await survey(configs(fakes))).values())
    assert isinstance(answers[0], errors.RayNotADashboard)
    assert not any(isinstance(answer, errors.RayError) for answer in answers[1:])
