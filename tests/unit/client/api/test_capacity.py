"""What a cluster has, and that nothing that it does not say counts as free."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from airflow_provider_ray.client import errors, pacing
from airflow_provider_ray.client.api.capacity import Capacity, Usage, free_of, total_of
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.models import Node
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayNotADashboard
from airflow_provider_ray.client.fault_words import MANY_RECORDS
from airflow_provider_ray.client.sharing.shared_client import shared_client
from tests.fake_dashboard import FakeDashboard, Outcome

pytestmark = pytest.mark.anyio

MIB = 2**20

# As Ray 2.60 writes it, with the usage of a cluster that has everything.
TEXT = """======== Autoscaler status: 2026-11-20 12:00:00.000000 ========
Node status
---------------------------------------------------------------
Active:
 1 node_f00
Pending:
 (no pending nodes)
Recent failures:
 (no failures)

Resources
---------------------------------------------------------------
Total Usage:
 2.5/8.0 CPU (0.5 used of 2.0 reserved in placement groups)
 0.30000000000000004/1.0 GPU
 1e-05/1.0 TPU
 512.00KiB/953.67MiB memory
 0B/1.50GiB object_store_memory (1.00MiB used of 512.00MiB reserved in placement groups)
 0.0/4.0 my resource (old)

From request_resources:
 {'CPU': 4}: 7 from request_resources()
Pending Demands:
 {'CPU': 16.0}: 3+ pending tasks/actors (2+ using placement groups)
 {'CPU': 0.5, 'my_gpu_type': 1.0}: 1+ pending tasks/actors
 {'CPU': 8.0} * 2 (SPREAD): 2+ pending placement groups"""


@pytest.fixture
async def client(fake: FakeDashboard) -> AsyncIterator[RayClient]:
    async with RayClient(ClusterConfig(url=fake.url)) as opened:
        yield opened


def usage(text: str) -> Usage:
    found = Usage.from_text(text)
    assert found is not None
    return found


def test_every_kind_of_line() -> None:
    found = usage(TEXT)
    assert found.total == {
        "CPU": 8.0,
        "GPU": 1.0,
        "TPU": 1.0,
        "memory": 953.67 * MIB,
        "object_store_memory": 1536 * MIB,
        "my resource (old)": 4.0,
    }
    assert found.used == {
        "CPU": 4.0,
        "GPU": 0.30000000000000004,
        "TPU": 1e-05,
        "memory": 512 * 1024,
        "object_store_memory": 511 * MIB,
        "my resource (old)": 0.0,
    }
    assert found.pending_demands == 6


def test_the_headings_of_ray_2_49() -> None:
    old = TEXT.replace("From request_resources:", "Total Constraints:").replace("Pending Demands:", "Total Demands:")
    assert usage(old) == usage(TEXT)


def test_an_error_of_the_autoscaler_below_it() -> None:
    assert usage(f"{TEXT}\nThe autoscaler failed with the following error:\n 9/9 CPU\n x: 9+ pending") == usage(TEXT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No cluster status. It may take a few seconds for the Ray internal services to start up.",
        TEXT.partition("Pending Demands:")[0],
        TEXT.replace("Total Usage:", "Usage of something else:"),
        "Total Usage:\n\nPending Demands:\n (no resource demands)",
        "Total Usage:\n much/8.0 CPU\n\nPending Demands:\n (no resource demands)",
    ],
    ids=["nothing", "too early", "cut short", "another form", "no raylet", "not a number"],
)
def test_a_text_without_usage_is_unknown(text: str) -> None:
    assert Usage.from_text(text) is None


@pytest.mark.parametrize("amount", ["1.2.3", "1..2", ".", "9e999", "1e400", "9" * 400, "nan", "inf", "--1"])
def test_a_line_that_is_no_usage_is_unknown_and_not_free(amount: str) -> None:
    found = usage(TEXT.replace("2.5/8.0 CPU", f"{amount}/8.0 CPU").replace("1e-05/1.0 TPU", f"0.0/{amount} TPU"))
    assert {"GPU", "memory"} <= set(found.used)
    assert not {"CPU", "TPU"} & set(found.used)
    assert free_of({"CPU": 8.0, "GPU": 1.0, "TPU": 1.0}, found) == {"GPU": 0.7}


def test_a_number_without_end_stands_for_no_demands() -> None:
    assert usage(TEXT.replace("3+ pending", f"{'9' * 5000}+ pending")).pending_demands == 3


async def test_an_idle_cluster(fake: FakeDashboard, client: RayClient) -> None:
    total = {"CPU": 2.0, "memory": 1e9, "object_store_memory": 1e8}
    expected = Capacity(
        ray_version="2.60.0",
        python_version="3.11.2",
        session_name=fake.session_name,
        head_alive=True,
        nodes=1,
        total=total,
        free=total,
        pending_demands=0,
        running_jobs=0,
        pending_jobs=0,
    )
    assert await client.capacity() == expected
    assert expected.to_json()["free"] == total


async def test_jobs_and_what_they_hold(fake: FakeDashboard, client: RayClient) -> None:
    fake.outcomes["ended"] = Outcome()
    fake.outcomes["waits"] = Outcome(running_after=60)
    fake.outcomes["odd"] = Outcome(ends_after=None, meanwhile="NEW STATE")
    fake.default_outcome = Outcome(ends_after=None)
    for name in ("ended", "a", "b", "odd"):
        await client.jobs.submit(JobSpec(entrypoint="true", submission_id=name, entrypoint_num_cpus=0.3))
    await client.jobs.submit(JobSpec(entrypoint="true", submission_id="waits", entrypoint_num_cpus=16))
    fake.drivers.append({"type": "DRIVER", "submission_id": None, "job_id": "01000000", "status": "RUNNING"})
    found = await client.capacity()
    assert (found.running_jobs, found.pending_jobs, found.pending_demands) == (3, 1, 1)
    assert found.free is not None
    assert found.free["CPU"] == 1.4


async def test_what_a_placement_group_holds_is_not_free(fake: FakeDashboard, client: RayClient) -> None:
    fake.used["CPU"] = 0.5
    fake.reserved["CPU"] = (0.25, 1.0)
    assert (await client.capacity()).free == {"CPU": 0.5, "memory": 1e9, "object_store_memory": 1e8}


async def test_nodes_that_are_alive_count(fake: FakeDashboard, client: RayClient) -> None:
    worker = {**fake.nodes[0], "node_id": "a", "is_head_node": False, "resources_total": {"CPU": 4.0, "odd": 0.1}}
    dead = {**worker, "node_id": "b", "state": "DEAD"}
    fake.nodes += [worker, {**worker, "node_id": "c"}, {**worker, "node_id": "d"}, dead]
    fake.used |= {"CPU": 13.0, "memory": 2e9}
    found = await client.capacity()
    assert found.nodes == 4
    assert found.total == {"CPU": 14.0, "memory": 1e9, "object_store_memory": 1e8, "odd": 0.3}
    assert found.free == {"CPU": 1.0, "memory": 0.0, "object_store_memory": 1e8, "odd": 0.3}


async def test_what_the_usage_does_not_cover_is_not_free(
    fake: FakeDashboard, client: RayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = usage("Total Usage:\n 1.0/2.0 CPU\n 0B/953.67MiB memory\n\nPending Demands:\n (no resource demands)")
    monkeypatch.setattr(Usage, "from_text", lambda _: told)
    # A node that has joined since, and a resource that Ray does not report on.
    fake.nodes.append({**fake.nodes[0], "node_id": "a", "is_head_node": False, "resources_total": {"CPU": 8.0}})
    fake.nodes[0]["resources_total"]["accelerator_type:A100"] = 1.0
    found = await client.capacity()
    assert found.total["CPU"] == 10.0
    assert found.total["accelerator_type:A100"] == 1.0
    assert found.free == {"CPU": 1.0, "memory": 1e9}


@pytest.mark.parametrize("nodes", ["dead", "gone", "worker"])
async def test_nothing_is_free_when_the_head_is_dead(fake: FakeDashboard, client: RayClient, nodes: str) -> None:
    worker = {**fake.nodes[0], "node_id": "a", "is_head_node": False, "resources_total": {"CPU": 4.0}}
    fake.nodes[0]["state"] = "DEAD"
    if nodes == "gone":
        fake.nodes.clear()
    if nodes == "worker":
        fake.nodes.append(worker)
    found = await client.capacity()
    assert not found.head_alive
    assert found.free == ({"CPU": 0.0} if nodes == "worker" else {})


@pytest.mark.parametrize("kind", [500, 404, "close", "cut"])
async def test_what_cannot_be_had_is_unknown(fake: FakeDashboard, client: RayClient, kind: Any) -> None:
    for path in ("/api/cluster_status", "/api/v0/cluster_metadata", "/api/v0/jobs"):
        fake.fail(kind, path=path, times=9)
    found = await client.capacity()
    assert found.head_alive
    assert found.total["CPU"] == 2.0
    assert (found.free, found.pending_demands, found.python_version) == (None, None, None)
    assert (found.running_jobs, found.pending_jobs) == (None, None)


async def test_a_cluster_that_has_not_looked_yet(fake: FakeDashboard, client: RayClient) -> None:
    fake.has_status = False
    found = await client.capacity()
    assert (found.free, found.pending_demands, found.running_jobs) == (None, None, 0)
    assert found.unknown == {"usage": "Ray has not reported it yet"}


async def test_a_part_that_hangs_is_unknown(
    fake: FakeDashboard, client: RayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "DETAIL_SECONDS", 0.3)
    fake.fail("hang", path="/api/v0/jobs")
    started = time.monotonic()
    found = await client.capacity()
    assert time.monotonic() - started < 5
    assert found.running_jobs is None
    assert found.unknown == {"jobs": f"no response within 0.3 s; {MANY_RECORDS}"}
    assert found.free is not None


@pytest.mark.parametrize("path", ["/api/version", "/api/v0/nodes"])
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_of_version_or_nodes_is_an_error(
    fake: FakeDashboard, client: RayClient, path: str, status: int
) -> None:
    fake.fail(status, path=path)
    with pytest.raises(errors.RayAuthError, match=f"{path}: {status}"):
        await client.capacity()


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/api/cluster_status", "usage"),
        ("/api/v0/cluster_metadata", "python_version"),
        ("/api/v0/jobs", "jobs"),
    ],
)
@pytest.mark.parametrize("status", [401, 403, 500])
async def test_what_is_unknown_has_a_reason(
    fake: FakeDashboard, client: RayClient, path: str, what: str, status: int
) -> None:
    """In our words: a server could repeat what it was sent."""
    fake.fail(status, path=path, text="Authorization: Bearer s3cret")
    found = await client.capacity()
    assert list(found.unknown) == [what]
    assert str(status) in found.unknown[what]
    assert "s3cret" not in str(found)


@pytest.mark.parametrize("path", ["/api/version", "/api/v0/nodes"])
async def test_version_and_nodes_must_be_told(fake: FakeDashboard, client: RayClient, path: str) -> None:
    fake.fail(503, path=path)
    with pytest.raises(errors.RayClusterUnavailable, match=path):
        await client.capacity()


@pytest.mark.parametrize(("path", "status"), [("/api/v0/nodes", 404), ("/api/v0/jobs", 401)])
async def test_of_two_faults_that_of_the_version_tells_more(fake: FakeDashboard, path: str, status: int) -> None:
    """Whichever comes first: a server that is no dashboard knows neither of the routes."""
    fake.fail(status, path=path)
    fake.fail("hang", path="/api/version")
    async with RayClient(ClusterConfig(url=fake.url, read_timeout=0.5)) as client:
        with pytest.raises(errors.RayClusterUnavailable, match="/api/version"):
            await client.capacity()


async def test_many_who_ask_a_shared_client_get_one_answer(fake: FakeDashboard) -> None:
    config = ClusterConfig(url=fake.url)
    async with shared_client(config) as one, shared_client(config) as other:
        answers = await asyncio.gather(*(client.capacity() for client in (one, other) for _ in range(50)))
        assert len({id(answer) for answer in answers}) == 1
        assert (await one.capacity()) is answers[0]
    assert len(fake.asked("GET", "/api/cluster_status")) == 1
    assert answers[0].nodes == 1


async def test_one_who_gives_up_takes_no_answer_away(fake: FakeDashboard) -> None:
    fake.fail(503, path="/api/version")
    async with shared_client(ClusterConfig(url=fake.url)) as client:
        hasty = asyncio.ensure_future(client.capacity())
        patient = asyncio.ensure_future(client.capacity())
        await asyncio.sleep(0)
        hasty.cancel()
        with pytest.raises(errors.RayClusterUnavailable):
            await patient


async def test_too_many_jobs_for_a_list_are_unknown_for_that_reason(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "LIST_BYTES", 10)
    found = await client.capacity()
    assert (found.head_alive, found.running_jobs, found.pending_jobs) == (True, None, None)
    assert found.unknown == {"jobs": f"the answer is too large; {MANY_RECORDS}"}


@pytest.mark.parametrize("names", [[f"r{number}" for number in range(1001)], ["r" * 257]])
async def test_resources_that_an_xcom_should_not_hold_are_no_capacity(
    client: RayClient, fake: FakeDashboard, names: list[str]
) -> None:
    fake.nodes[0]["resources_total"] = dict.fromkeys(names, 1.0)
    with pytest.raises(RayNotADashboard, match="reports .* resources; expected at most 1000"):
        await client.capacity()


def test_many_nodes_with_resources_of_their_own_are_added_up_in_no_time() -> None:
    each = [{f"r{number}": 1.0, "CPU": 0.1} for number in range(10**4)]
    nodes = [Node(node_id="n", state="ALIVE", resources_total=resources) for resources in each]
    started = time.monotonic()
    total = total_of(nodes)
    assert time.monotonic() - started < 1
    assert (len(total), total["CPU"], total["r7"]) == (10**4 + 1, 1000.0, 1.0)
