"""Name servers that hang: they delay the clusters with these names, and nobody else."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_ray.client.api import names
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.clusters.asking import Question, ask_all
from airflow_provider_ray.client.clusters.survey import survey
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayClusterUnavailable, RayError
from tests.fake_dashboard import FakeDashboard

pytestmark = pytest.mark.anyio


class NameServer:
    """Hangs for names that begin with ``hang``, until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.answers = threading.Event()
        real = socket.getaddrinfo

        def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
            self.asked.append(host)
            if str(host).startswith("hang"):
                self.answers.wait(60)
                return real("localhost", *arguments, **options)
            return real(host, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer(monkeypatch)
    yield server
    server.answers.set()


def cluster(host: str, fake: FakeDashboard, **fields: Any) -> ClusterConfig:
    return ClusterConfig(url=f"http://{host}:{fake.port}", **fields)


async def version(config: ClusterConfig) -> str:
    async with RayClient(config) as client:
        return (await client.cluster.version()).ray_version


@pytest.mark.parametrize("host", ["ray..example", "a" * 64 + ".example"])
async def test_a_name_that_cannot_be_one_is_an_error_of_that_cluster_alone(fake: FakeDashboard, host: str) -> None:
    asked = [
        Question(RayClient(cluster(each, fake)), lambda client: client.cluster.version())
        for each in (host, "localhost")
    ]
    bad, good = await ask_all(asked)
    assert isinstance(bad, RayClusterUnavailable)
    assert "not a host name" in str(bad)
    assert not isinstance(good, RayError)


async def test_names_that_hang_delay_neither_other_clusters_nor_the_event_loops_threads(
    fake: FakeDashboard, name_server: NameServer
) -> None:
    hanging = [asyncio.create_task(version(cluster(f"hang{number}", fake))) for number in range(40)]
    await asyncio.sleep(0.2)
    started = time.monotonic()
    assert await version(cluster("localhost", fake)) == "2.60.0"
    await asyncio.to_thread(time.sleep, 0)
    assert time.monotonic() - started < 3
    assert not any(task.done() for task in hanging)
    name_server.answers.set()
    assert set(await asyncio.gather(*hanging)) == {"2.60.0"}


async def test_a_look_up_takes_no_longer_than_a_connection_may(fake: FakeDashboard, name_server: NameServer) -> None:
    started = time.monotonic()
    with pytest.raises(
        RayClusterUnavailable, match=r"hang:\d+.*no answer from the name server within 0\.2 s"
    ) as caught:
        await version(cluster("hang", fake, connect_timeout=0.2))
    assert time.monotonic() - started < 5
    assert caught.value.never_sent


async def test_a_name_has_one_thread_however_many_ask_for_it(fake: FakeDashboard, name_server: NameServer) -> None:
    config = cluster("hang", fake, connect_timeout=0.1)
    for _ in range(5):
        await asyncio.gather(*(version(config) for _ in range(5)), return_exceptions=True)
    assert name_server.asked.count("hang") == 1
    name_server.answers.set()
    # The answer that nobody waited for any more is there for the next one.
    while names._known["hang", fake.port, socket.AF_UNSPEC].until > time.monotonic() + 1000:
        await asyncio.sleep(0.01)
    assert await version(config) == "2.60.0"
    assert name_server.asked.count("hang") == 1


async def test_a_survey_asks_every_cluster_whose_name_is_known(fake: FakeDashboard, name_server: NameServer) -> None:
    hanging = {f"c{number}": cluster(f"hang{number}", fake, connect_timeout=1) for number in range(40)}
    answers = await survey({**hanging, "healthy": cluster("localhost", fake)})
    faults = {conn_id for conn_id, answer in answers.items() if isinstance(answer, RayClusterUnavailable)}
    assert faults == set(hanging)


async def test_a_name_that_nobody_knows_is_looked_up_again(fake: FakeDashboard, name_server: NameServer) -> None:
    for _ in range(2):
        with pytest.raises(RayClusterUnavailable, match=r"no connection.*unknown\.invalid"):
            await version(cluster("unknown.invalid", fake))
    assert name_server.asked.count("unknown.invalid") == 2


async def test_addresses_are_found_as_by_aiohttp() -> None:
    from aiohttp.resolver import ThreadedResolver

    for family in (socket.AF_UNSPEC, socket.AF_INET):
        ours = await names.Resolver(5).resolve("localhost", 80, family)
        theirs = await ThreadedResolver().resolve("localhost", 80, family)
        assert [(each["host"], each["port"], each["family"]) for each in ours] == [
            (each["host"], each["port"], each["family"]) for each in theirs
        ]
