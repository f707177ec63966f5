"""Many waits in one event loop: ours against one request per job and interval, on the same three dashboards.

The dashboards are servers of this module in processes of their own: no real cluster runs ten thousand jobs here.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import aiohttp
import psutil
from aiohttp import web

CLUSTERS = 3
POLL_SECONDS = 10.0
# Jobs end evenly over this time, in seconds after they are told to go.
ENDS = (10.0, 50.0)
LAG_PROBE_SECONDS = 0.02
NODE_ID = "f" * 56
Wait = Callable[[str, str], Coroutine[Any, Any, float]]


def measure() -> dict[str, Any]:
    """What a thousand and ten thousand waits of up to a minute cost, by way of waiting."""
    return {
        "1,000 jobs": {"one request each": _run(999, _one_request_each), "shared": _run(999, _shared)},
        "10,000 jobs": {"shared": _run(9999, _shared)},
    }


def _run(jobs: int, wait: Wait) -> dict[str, Any]:
    each = jobs // CLUSTERS
    with dashboards(each) as urls:
        return asyncio.run(_measured(urls, each, wait))


async def _measured(urls: list[str], jobs: int, wait: Wait) -> dict[str, Any]:
    lags: list[float] = []
    process, memory = psutil.Process(), [psutil.Process().memory_info().rss]
    probe = asyncio.create_task(_probe(lags))
    for url in urls:
        await _get(f"{url}/go")
    cpu, started = time.process_time(), time.monotonic()
    waits = [asyncio.create_task(wait(url, f"j{number}")) for url in urls for number in range(jobs)]
    # All of them wait by then, and none has ended.
    await asyncio.sleep(ENDS[0] - 1)
    memory.append(process.memory_info().rss)
    delays = await asyncio.gather(*waits)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    probe.cancel()
    requests = [int(await _get(f"{url}/count")) for url in urls]
    return {
        "requests per second and cluster": round(max(requests) / seconds, 2),
        "loop lag, p99, ms": round(statistics.quantiles(lags, n=100)[98] * 1000, 1),
        "CPU, share of a core": round(cpu / seconds, 3),
        "from a job's end to its event, median, s": round(statistics.median(delays), 2),
        "memory per 1,000 waits, MB": round((memory[1] - memory[0]) / 1e6 * 1000 / len(waits), 1),
    }


async def _get(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()


async def _probe(lags: list[float]) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(LAG_PROBE_SECONDS)
        lags.append(time.monotonic() - before - LAG_PROBE_SECONDS)


async def _shared(url: str, submission_id: str) -> float:
    from airflow_provider_ray.client.config import ClusterConfig
    from airflow_provider_ray.client.jobs.waiting import wait_for_job
    from airflow_provider_ray.client.sharing.shared_client import shared_client

    async with shared_client(ClusterConfig(url=url)) as client:
        job = await wait_for_job(client, submission_id, poll_interval=POLL_SECONDS)
    return time.time() - (job.end_time_ms or 0) / 1000


async def _one_request_each(url: str, submission_id: str) -> float:
    """What a trigger does that knows nothing of the others, with the same client."""
    from airflow_provider_ray.client.api.ray_client import RayClient
    from airflow_provider_ray.client.config import ClusterConfig
    from airflow_provider_ray.client.states import is_terminal

    async with RayClient(ClusterConfig(url=url)) as client:
        job = await client.jobs.get(submission_id)
        while not is_terminal(job.status):
            await asyncio.sleep(POLL_SECONDS)
            job = await client.jobs.get(submission_id)
    return time.time() - (job.end_time_ms or 0) / 1000


@contextlib.contextmanager
def dashboards(jobs: int) -> Iterator[list[str]]:
    """Three servers with that many jobs each, which run on until somebody says ``GET /go``."""
    command = [sys.executable, "-m", "benchmarks.waits", str(jobs)]
    servers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(CLUSTERS)]
    try:
        yield [server.stdout.readline().strip() for server in servers if server.stdout]
    finally:
        for server in servers:
            server.terminate()
            server.wait()


class _Dashboard:
    """Answers for jobs that run until their time has come."""

    def __init__(self, jobs: int) -> None:
        self._started = math.inf
        first, last = ENDS
        self._ends = {f"j{number}": first + (last - first) * number / jobs for number in range(jobs)}
        self._count = 0

    def application(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.get("/api/jobs/", self._list),
                web.get("/api/jobs/{id}", self._get),
                web.get("/api/v0/nodes", self._nodes),
                web.get("/count", self._counted),
                web.get("/go", self._go),
            ]
        )
        return application

    def _job(self, submission_id: str) -> dict[str, Any]:
        ended = time.time() - self._started > self._ends[submission_id]
        return {
            "type": "SUBMISSION",
            "submission_id": submission_id,
            "status": "SUCCEEDED" if ended else "RUNNING",
            "message": "Job is currently running.",
            "entrypoint": "python parallel_processing.py '{}'",
            "metadata": {"airflow_dag_id": "fan_out", "airflow_run_id": "manual", "airflow_task_id": "submit"},
            "runtime_env": {"working_dir": "gcs://_ray_pkg_0123456789abcdef.zip"},
            "driver_node_id": NODE_ID,
            "start_time": 1_700_000_000_000,
            "end_time": int((self._started + self._ends[submission_id]) * 1000) if ended else None,
        }

    async def _list(self, request: web.Request) -> web.Response:
        self._count += 1
        return web.json_response([self._job(submission_id) for submission_id in self._ends])

    async def _get(self, request: web.Request) -> web.Response:
        self._count += 1
        return web.json_response(self._job(request.match_info["id"]))

    async def _nodes(self, request: web.Request) -> web.Response:
        self._count += 1
        node = {"node_id": NODE_ID, "state": "ALIVE"}
        return web.json_response({"data": {"result": {"result": [node]}}})

    async def _go(self, request: web.Request) -> web.Response:
        self._started, self._count = time.time(), 0
        return web.Response()

    async def _counted(self, request: web.Request) -> web.Response:
        return web.json_response(self._count)


async def _serve(jobs: int) -> None:
    async with _listening(_Dashboard(jobs).application()) as url:
        print(url, flush=True)
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def _listening(application: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
