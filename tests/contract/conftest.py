"""The clusters that the same tests run on: fakes and real heads."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from airflow_provider_ray.client.api.job_spec import JobSpec, command
from airflow_provider_ray.client.api.models import JobDetails
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.jobs.driver_log import DriverLog
from airflow_provider_ray.client.jobs.submission import submit
from airflow_provider_ray.client.jobs.waiting import wait_for_job
from airflow_provider_ray.local import LocalOptions, local_clusters
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.lines import Lines

# From the virtual environment of ``make setup-ray249``.
RAY249 = Path(__file__).parents[2] / ".venv-ray249/bin/ray"
TOKEN = "test-token-0123456789abcdef"
JOB_SECONDS = 90.0
APPLICATION = "contract"
PREFIX = "/contract"
BIG_ANSWER_BYTES = 2_000_002
INFO_LINE = re.compile(rb"\A[\d-]+ [\d:,]+\tINFO job_manager\.py:\d+ -- Runtime env is setting up\.\n")


@dataclass(frozen=True)
class Cluster:
    """A cluster under test; only a fake has to be told what its jobs do."""

    config: ClusterConfig
    ray: tuple[int, int]
    serve_port: int
    fake: FakeDashboard | None = None

    def expect(self, submission_id: str, **outcome: Any) -> str:
        if self.fake is not None:
            self.fake.outcomes[submission_id] = Outcome(**outcome)
        return submission_id


KINDS = ["fake", "fake-token", "fake-2.49", "ray-token", pytest.param("ray-2.49", marks=pytest.mark.full)]


@pytest.fixture(scope="session", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The same test on each of them."""
    with _fake(request.param) if request.param.startswith("fake") else _real(request.param) as made:
        yield made


@contextmanager
def _real(kind: str) -> Iterator[Cluster]:
    """A head, which lives only as long as the tests on it."""
    options = {
        "ray-token": LocalOptions(tokens=[TOKEN]),
        "ray-2.49": LocalOptions(ray_executable=str(RAY249)),
    }
    with local_clusters(1, options[kind]) as (local,):
        ray = (2, 49) if kind == "ray-2.49" else (2, 60)
        yield Cluster(ClusterConfig(url=local.url, token=local.token), ray, local.serve_port)


@contextmanager
def _fake(kind: str) -> Iterator[Cluster]:
    old, token = kind == "fake-2.49", TOKEN if kind == "fake-token" else None
    with FakeDashboard(ray_version="2.49.2" if old else "2.60.0", token=token) as fake:
        fake.log_preamble = True
        config = ClusterConfig(url=fake.url, token=token)
        yield Cluster(config, (2, 49) if old else (2, 60), fake.serve_port, fake)


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[RayClient]:
    async with RayClient(cluster.config) as opened:
        yield opened


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A submission_id that nothing else has."""
    return f"{request.node.originalname}-{uuid.uuid4().hex[:8]}"


async def run(client: RayClient, name: str, entrypoint: str, **options: Any) -> JobDetails:
    """Submit a job and wait for its end."""
    await submit(client, JobSpec(entrypoint=entrypoint, submission_id=name, **options))
    return await wait_for_job(client, name, poll_interval=0.5, timeout=JOB_SECONDS)


async def log_of(client: RayClient, job: JobDetails) -> bytes:
    """What a driver has written, without the lines of Ray; the second of them may come in the midst of the driver's."""
    async with client.jobs.log(job) as stream:
        whole = await stream.read()
    return INFO_LINE.sub(b"", whole, count=1).replace(f"{_entrypoint_line(job)}\n".encode(), b"", 1)


async def lines_of(client: RayClient, job: JobDetails) -> list[str]:
    """The same through :class:`DriverLog`, for a driver that writes nothing in its first moments."""
    lines = Lines()
    await DriverLog(client, lines).deliver(job, final=True)
    return without_preamble(lines, job)


def without_preamble(lines: list[str], job: JobDetails) -> list[str]:
    rest = lines[1:] if lines and INFO_LINE.match(f"{lines[0]}\n".encode()) else lines
    own = _entrypoint_line(job).split("\n")
    return rest[len(own) :] if rest[: len(own)] == own else rest


def _entrypoint_line(job: JobDetails) -> str:
    return f"Running entrypoint for job {job.submission_id}: {job.entrypoint}"


@pytest.fixture(scope="session")
async def served(cluster: Cluster) -> str:
    """The submission_id of the job that has deployed the application, one per cluster and run of the tests."""
    name = f"serve-{uuid.uuid4().hex[:8]}"
    if cluster.fake is not None:
        cluster.fake.serve_options["root_path"] = "/base"
        cluster.fake.deploy(APPLICATION, PREFIX, _answer)
        cluster.fake.deploy(f"{APPLICATION}-fastapi", f"{PREFIX}-fastapi", _fastapi)
    settings = {"port": cluster.serve_port, "name": APPLICATION, "route_prefix": PREFIX, "big": BIG_ANSWER_BYTES}
    spec = JobSpec(
        entrypoint=command("python deploy.py", settings),
        submission_id=name,
        runtime_env={"working_dir": str(Path(__file__).parent / "serve_application")},
    )
    async with RayClient(cluster.config) as client:
        await submit(client, spec)
    return name


async def _fastapi(request: web.Request) -> web.Response:
    """The other one."""
    if request.path.endswith("/"):
        return web.json_response({"fastapi": True})
    return web.Response(status=307, headers={"Location": f"http://{request.host}/base{request.path}/"})


async def _answer(request: web.Request) -> web.Response:
    """What ``serve_application/deploy.py`` answers, for the fake."""
    path = request.path.removeprefix(PREFIX)
    if path == "/error":
        return web.Response(status=500, text="Internal Server Error")
    if path == "/text":
        return web.Response(text="plain words")
    if path == "/big":
        return web.json_response("x" * (BIG_ANSWER_BYTES - 2))
    body = await request.read()
    seen = {"method": request.method, "path": path, "query": dict(request.query), "headers": dict(request.headers)}
    return web.json_response({**seen, "body": json.loads(body) if body else None})
