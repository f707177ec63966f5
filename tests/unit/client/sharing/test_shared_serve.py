"""Many who wait for Serve applications of one cluster, and what the cluster sees of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import pytest

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayServeDeployFailed, RayServeNotReady
from airflow_provider_ray.client.serving.application import ServeRoute
from airflow_provider_ray.client.sharing.shared_client import SharedClient, shared_client
from tests.fake_dashboard import FakeDashboard, Outcome

pytestmark = pytest.mark.anyio

WAITS = 100
REQUESTS_PER_SECOND = 2
SECONDS = 10.0
Change = Callable[[FakeDashboard], Any]


async def wait(fake: FakeDashboard, application: str | None, submission_id: str | None = None, **how: Any) -> str:
    async with shared_client(ClusterConfig(url=fake.url)) as client:
        route = ServeRoute(client, application, "/app0/" if application is None else "/", submission_id)
        return await route.wait(**{"poll_interval": 5.0, "timeout": 60.0, **how})


def deploying(fake: FakeDashboard) -> None:
    for number in range(10):
        fake.deploy(f"app{number}", f"/app{number}", {}, status="DEPLOYING")


def unrouted(fake: FakeDashboard) -> None:
    for number in range(10):
        fake.deploy(f"app{number}", f"/app{number}", {}, routed=False)


def refusing(fake: FakeDashboard) -> None:
    unrouted(fake)
    fake.fail(503, path="/", times=10_000)


def no_proxy(fake: FakeDashboard) -> None:
    unrouted(fake)
    fake.fail("close", path="/-/routes", times=10_000)


@pytest.mark.parametrize(
    ("change", "jobs"),
    [(deploying, 0), (deploying, 1), (unrouted, 0), (unrouted, 3), (unrouted, 100), (refusing, 1), (no_proxy, 1)],
)
async def test_many_waits_cost_two_requests_a_second(fake: FakeDashboard, change: Change, jobs: int) -> None:
    async with RayClient(ClusterConfig(url=fake.url)) as client:
        for number in range(jobs):
            fake.outcomes[f"j{number}"] = Outcome(ends_after=None)
            await client.jobs.submit(JobSpec(entrypoint="true", submission_id=f"j{number}"))
    change(fake)
    names = [None, *(f"app{number}" for number in range(10))]
    waits = [
        asyncio.create_task(wait(fake, names[number % 11], f"j{number % jobs}" if jobs else None))
        for number in range(WAITS)
    ]
    fake.requests.clear()
    await asyncio.sleep(SECONDS)

    assert len(fake.requests) / SECONDS <= REQUESTS_PER_SECOND
    assert {each.server for each in fake.requests} == ({"dashboard"} if change is refusing else {"dashboard", "serve"})
    fake.faults.clear()
    for application in fake.applications.values():
        application.status, application.routed = "RUNNING", True
    before = len(fake.requests)
    async with asyncio.timeout(3 * 5):
        addresses = await asyncio.gather(*waits)
    assert set(addresses) == {f"{fake.serve_url}/app{number}/" for number in range(10)}
    assert len(fake.requests) - before <= 3 * 5 * REQUESTS_PER_SECOND


async def test_waits_that_begin_one_after_the_other_cost_no_more(fake: FakeDashboard) -> None:
    unrouted(fake)
    started, waits = monotonic(), []
    for number in range(WAITS):
        waits.append(asyncio.create_task(wait(fake, f"app{number % 10}", timeout=3.0)))
        await asyncio.sleep(0.07)
    ends = await asyncio.gather(*waits, return_exceptions=True)
    assert {type(end) for end in ends} == {RayServeNotReady}
    assert len(fake.requests) / (monotonic() - started) <= REQUESTS_PER_SECOND


async def test_each_wait_ends_with_its_own_application(fake: FakeDashboard) -> None:
    fake.deploy("good", "/good", {})
    fake.deploy("bad", "/bad", {}, status="DEPLOY_FAILED", message="ImportError: nothing")
    waits = [wait(fake, name, timeout=6.0) for name in ("good", "bad", "nobody", "good")]
    good, bad, nobody, again = await asyncio.gather(*waits, return_exceptions=True)
    assert good == again == f"{fake.serve_url}/good/"
    assert isinstance(bad, RayServeDeployFailed)
    assert isinstance(nobody, RayServeNotReady)


async def test_who_gives_up_costs_the_others_nothing(fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "SERVE_ROUND_SECONDS", 0.5)
    app = fake.deploy("app", "/app", {}, status="DEPLOYING")
    waits = [asyncio.create_task(wait(fake, "app")) for _ in range(10)]
    await asyncio.sleep(0.6)
    for given_up in waits[:5]:
        given_up.cancel()
        with suppress(asyncio.CancelledError):
            await given_up
    app.status = "RUNNING"
    assert set(await asyncio.gather(*waits[5:])) == {f"{fake.serve_url}/app/"}


async def test_a_silent_cluster_does_not_delay_the_end_of_a_wait(fake: FakeDashboard) -> None:
    fake.fail("hang", path="/api/serve", times=100)
    started = monotonic()
    with pytest.raises(RayServeNotReady, match="no answer in time"):
        await wait(fake, "app", timeout=3.0)
    assert monotonic() - started < 3 + pacing.SERVE_LAST_LOOK_SECONDS + 0.5


async def test_the_moments_of_the_checks_are_common_and_as_asked() -> None:
    first, second = (SharedClient(ClusterConfig(url="http://127.0.0.1:1")).serve for _ in range(2))
    for seconds in (0.0, 0.3, 1.0, 3.0, 5.0, 60.0):
        now = monotonic()
        ends = [now + serve.paced(seconds) for serve in (first, second)]
        assert ends[1] - ends[0] < 0.1
        assert abs(ends[0] / pacing.SERVE_ROUND_SECONDS - round(ends[0] / pacing.SERVE_ROUND_SECONDS)) < 0.01
        assert 0 < ends[0] - now <= max(seconds + pacing.SERVE_ROUND_SECONDS / 2, pacing.SERVE_ROUND_SECONDS) + 0.1
