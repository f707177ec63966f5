from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from airflow_provider_ray.client.api.job_spec import JobSpec, command
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.jobs.driver_log import DriverLog, last_lines
from airflow_provider_ray.client.jobs.submission import submit
from airflow_provider_ray.client.jobs.waiting import wait_for_job
from tests.contract.conftest import JOB_SECONDS, Cluster, lines_of, log_of, run, without_preamble
from tests.lines import Lines

pytestmark = pytest.mark.anyio

BYTES = b"one\n\ntwo \xc3\xbc\r\n\xff\xfe not UTF-8\n" + b"x" * 1_000_000 + b"\nafter\n" + b"last words"
WRITE_BYTES = (
    "import os, time; time.sleep(1)\n"
    r"out = b'one\n\ntwo \xc3\xbc\r\n\xff\xfe not UTF-8\n' + b'x' * 1_000_000 + b'\nafter\nlast words'"
    "\nwhile out: out = out[os.write(1, out):]"
)


async def test_awkward_bytes(cluster: Cluster, client: RayClient, name: str) -> None:
    cluster.expect(name, log=BYTES)
    job = await run(client, name, command(["python", "-c", WRITE_BYTES]))
    assert await log_of(client, job) == BYTES
    lines = await lines_of(client, job)
    assert lines[:4] == ["one", "", "two ü", "\ufffd\ufffd not UTF-8"]
    assert "".join(lines[4:-2]) == "x" * 1_000_000
    assert lines[-2:] == ["after", "last words"]


async def test_the_last_lines(cluster: Cluster, client: RayClient, name: str) -> None:
    cluster.expect(name, log=b"".join(b"%d\n" % number for number in range(1, 3001)))
    job = await run(client, name, "sleep 1; seq 3000")
    assert await lines_of(client, job) == [str(number) for number in range(1, 3001)]
    assert await last_lines(client, job) == [str(number) for number in range(2981, 3001)]


async def test_a_log_of_300_megabytes(cluster: Cluster, client: RayClient, name: str) -> None:
    line = "x" * 99
    # A fake with the same would only take longer to make it up.
    cluster.expect(name, log=f"{line}\n".encode() * 400_000)
    job = await run(client, name, f"sleep 1; yes {line} | head -c 300000000")
    lines, peak = Lines(), 0
    if cluster.fake is None:
        tracemalloc.start()
    try:
        await DriverLog(client, lines).deliver(job, final=True)
    finally:
        if tracemalloc.is_tracing():
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert any("omitted" in each for each in lines)
    assert any("full log: " in each for each in lines)
    assert lines[-20:] == [line] * 20
    assert peak < 50_000_000


async def test_an_empty_log(cluster: Cluster, client: RayClient, name: str) -> None:
    job = await run(client, cluster.expect(name), "true")
    assert await log_of(client, job) == b""
    assert await lines_of(client, job) == []


async def test_a_log_while_it_grows(cluster: Cluster, client: RayClient, name: str) -> None:
    cluster.expect(name, ends_after=2.5, log=[(0.1, b"first\nsec"), (1.5, b"ond\n"), (2.0, b"third")])
    entrypoint = "sleep 1; printf 'first\\nsec'; sleep 3; printf 'ond\\n'; sleep 3; printf third"
    await submit(client, JobSpec(entrypoint=entrypoint, submission_id=name))
    lines = Lines()
    first = DriverLog(client, lines)
    while "first" not in lines:
        await asyncio.sleep(0.1)
        await first.deliver(await client.jobs.get(name))
    assert lines[-1] == "first"
    second = DriverLog(client, lines)
    second.delivered = first.delivered
    job = await wait_for_job(client, name, poll_interval=0.3, timeout=JOB_SECONDS, log=second)
    assert job.status == "SUCCEEDED"
    assert without_preamble(lines, job) == ["first", "second", "third"]
