"""What a cluster says of its capacity, while it is idle, used, reserved and asked for too much."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_ray.client.api.capacity import Capacity
from airflow_provider_ray.client.api.job_spec import JobSpec, command
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.errors import RayAuthError
from airflow_provider_ray.client.jobs.submission import submit
from airflow_provider_ray.client.jobs.waiting import stop_job
from tests.contract.conftest import Cluster

pytestmark = pytest.mark.anyio

# Holds half a CPU of one that a placement group reserves, and asks for what the cluster will never have.
HOLDING = """
import time, ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
ray.init()
group = placement_group([{"CPU": 1, "memory": 100_000_000}])
ray.get(group.ready())
@ray.remote(num_cpus=0.5)
def hold(seconds):
    time.sleep(seconds)
kept = [hold.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group)).remote(600)]
kept += [hold.options(num_cpus=16, resources={"my_type": 1}).remote(1) for _ in range(3)]
kept += [placement_group([{"CPU": 16}, {"CPU": 16}])]
time.sleep(600)
"""


async def told(client: RayClient, expected: Callable[[Capacity], bool]) -> Capacity:
    """Ray itself looks at what is used every five seconds, and begins some seconds after the head."""
    last = await client.capacity()
    try:
        async with asyncio.timeout(60):
            while not expected(last):
                await asyncio.sleep(0.5)
                last = await client.capacity()
    except TimeoutError as error:
        raise AssertionError(f"at last it was {last}") from error
    return last


def free(capacity: Capacity, name: str) -> float | None:
    return (capacity.free or {}).get(name)


async def test_an_idle_cluster(cluster: Cluster, client: RayClient) -> None:
    found = await told(client, lambda capacity: free(capacity, "CPU") == 2.0)
    assert set(found.total) == {"CPU", "memory", "object_store_memory"}
    assert found.free == found.total
    assert (found.head_alive, found.nodes, found.pending_demands) == (True, 1, 0)
    assert found.ray_version.startswith(f"{cluster.ray[0]}.{cluster.ray[1]}.")
    assert found.python_version is not None
    assert [part.isdecimal() for part in found.python_version.split(".")] == [True] * 3
    if cluster.fake is None:
        assert found.python_version == platform.python_version()
    assert found.session_name is not None
    assert (found.running_jobs, found.pending_jobs) == (0, 0)


async def test_a_job_takes_what_its_driver_reserves(cluster: Cluster, client: RayClient, name: str) -> None:
    cluster.expect(name, ends_after=None)
    spec = JobSpec(entrypoint="sleep 600", submission_id=name, entrypoint_num_cpus=0.5, entrypoint_memory=100 * 2**20)
    await submit(client, spec)
    found = await told(client, lambda capacity: free(capacity, "CPU") == 1.5 and capacity.running_jobs == 1)
    assert found.free is not None
    assert found.free["memory"] == found.total["memory"] - 100 * 2**20
    assert (found.pending_jobs, found.pending_demands) == (0, 0)
    await stop_job(client, name)
    found = await told(client, lambda capacity: free(capacity, "CPU") == 2.0)
    assert (found.running_jobs, found.pending_jobs) == (0, 0)


async def test_what_is_reserved_and_what_waits(cluster: Cluster, client: RayClient, name: str) -> None:
    cluster.expect(name, ends_after=None)
    if cluster.fake is not None:
        cluster.fake.reserved |= {"CPU": (0.5, 1.0), "memory": (0.0, 1e8)}
        cluster.fake.demands += [
            " {'CPU': 16.0, 'my_type': 1.0}: 3+ pending tasks/actors",
            " {'CPU': 16.0} * 2 (PACK): 1+ pending placement groups",
        ]
    await submit(client, JobSpec(entrypoint=command(["python", "-c", HOLDING]), submission_id=name))
    found = await told(client, lambda capacity: capacity.pending_demands == 4)
    assert free(found, "CPU") == 1.0
    # Ray writes 95.37MiB for 100 million bytes.
    assert free(found, "memory") == pytest.approx(found.total["memory"] - 1e8, abs=1e4)
    await stop_job(client, name)
    if cluster.fake is not None:
        cluster.fake.reserved.clear()
        cluster.fake.demands.clear()
    await told(client, lambda capacity: free(capacity, "CPU") == 2.0 and capacity.pending_demands == 0)


async def test_a_missing_and_a_wrong_token(cluster: Cluster) -> None:
    for token, status in ((None, 401), ("wr0ng-token", 403)):
        async with RayClient(replace(cluster.config, token=token)) as client:
            if cluster.config.token is None:
                assert (await client.capacity()).head_alive
                continue
            with pytest.raises(RayAuthError, match=str(status)):
                await client.capacity()


async def test_a_job_that_the_cluster_has_no_room_for(cluster: Cluster, client: RayClient, name: str) -> None:
    """The last one here: Ray ends such a job by itself, after a quarter of an hour."""
    cluster.expect(name, running_after=10_000, stop_after=None)
    await submit(client, JobSpec(entrypoint="true", submission_id=name, entrypoint_num_cpus=16))
    found = await told(client, lambda capacity: capacity.pending_demands == 1)
    assert (found.running_jobs, found.pending_jobs) == (0, 1)
    assert free(found, "CPU") == 2.0
