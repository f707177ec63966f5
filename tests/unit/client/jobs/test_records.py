"""Which records of jobs are deleted, and which never."""

from __future__ import annotations

import asyncio
import time
from math import inf
from typing import Any

import pytest

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.jobs import records
from airflow_provider_ray.client.jobs.records import clean, old_records, retention
from airflow_provider_ray.client.jobs.submission import INSTALLATION_KEY, NONCE_KEY
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.fake_dashboard.state import Job

pytestmark = pytest.mark.anyio

HOUR, DAY = 3600.0, 86_400.0
KEPT = {"young", "running", "pending", "stopping", "foreign", "staging", "unnamed"}
OURS = {NONCE_KEY: "n", INSTALLATION_KEY: "prod"}


def add(fake: FakeDashboard, name: str, age: float, metadata: dict[str, str] = OURS, **outcome: Any) -> None:
    """A job that ended some time ago, or began then if it has not ended."""
    body = {"entrypoint": "true", "submission_id": name, "metadata": metadata}
    submitted_ms = int((time.time() - age) * 1000)
    fake.jobs[name] = Job(body, Outcome(**outcome), submitted=time.monotonic() - age, submitted_ms=submitted_ms)


@pytest.fixture
def jobs(fake: FakeDashboard) -> FakeDashboard:
    add(fake, "old", 8 * DAY)
    add(fake, "failed", 9 * DAY, status="FAILED", exit_code=1)
    add(fake, "stopped", 10 * DAY, status="STOPPED")
    add(fake, "young", 6 * DAY)
    add(fake, "running", 30 * DAY, ends_after=None)
    add(fake, "pending", 30 * DAY, running_after=99 * DAY)
    add(fake, "stopping", 30 * DAY, ends_after=None, meanwhile="A NEW STATE")
    add(fake, "foreign", 30 * DAY, {"note": "n"})
    add(fake, "staging", 30 * DAY, {**OURS, INSTALLATION_KEY: "staging"})
    add(fake, "unnamed", 30 * DAY, {NONCE_KEY: "n"})
    fake.drivers.append({"type": "DRIVER", "job_id": "01000000", "status": "SUCCEEDED", "end_time": 1})
    return fake


async def test_ended_jobs_of_ours_are_deleted_by_age(client: RayClient, jobs: FakeDashboard) -> None:
    found = await old_records(client, 7 * DAY, "prod")
    assert [job.submission_id for job in found] == ["stopped", "failed", "old"]
    assert await clean(client, 7 * DAY, "prod") == 3
    assert set(jobs.jobs) == KEPT
    assert await clean(client, 7 * DAY, "prod") == 0


async def test_a_job_without_a_time_of_its_end_stays(client: RayClient, fake: FakeDashboard) -> None:
    job = {"submission_id": "j1", "status": "FAILED", "metadata": OURS, "end_time": None}
    fake.drivers.append(job)
    assert await clean(client, HOUR, "prod") == 0
    assert not fake.asked("DELETE", "/")


async def test_a_record_that_is_gone_already_does_not_count(client: RayClient, jobs: FakeDashboard) -> None:
    jobs.fail(404, method="DELETE", times=1)
    assert await clean(client, 7 * DAY, "prod") == 2


async def test_a_record_that_stays_is_not_deleted_again_and_again(client: RayClient, jobs: FakeDashboard) -> None:
    jobs.fail(200, method="DELETE", times=99, text='{"deleted": true}')
    assert await clean(client, 7 * DAY, "prod") == 3
    assert len(jobs.asked("DELETE", "/")) == 3


async def test_too_many_records_for_a_list_are_deleted_in_parts(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "LIST_BYTES", 20_000)
    monkeypatch.setattr(pacing, "RECORDS_AT_ONCE", 10)
    for number in range(60):
        add(fake, f"j{number}", 8 * DAY)
    assert await clean(client, 7 * DAY, "prod") == 60
    assert not fake.jobs


@pytest.fixture(autouse=True)
def never_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_cleaned_at", {})


async def test_a_retention_deletes_now_and_then(jobs: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "RECORDS_AT_ONCE", 2)
    records._cleaned_at[jobs.url] = -inf
    async with RayClient(ClusterConfig(url=jobs.url, job_retention=7)) as client:
        for _ in range(3):
            async with retention(client, "prod"):
                while len(jobs.asked("DELETE", "/")) < 2:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
        assert set(jobs.jobs) == {*KEPT, "old"}
        assert len(jobs.asked("GET", "/api/jobs/")) == 1
        records._cleaned_at[jobs.url] = -inf
        async with retention(client, "prod"):
            while "old" in jobs.jobs:
                await asyncio.sleep(0.01)
        assert set(jobs.jobs) == KEPT


async def test_a_process_that_has_just_begun_to_wait_deletes_nothing(
    jobs: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its waits may have rested for longer than the retention, and have not seen yet what became of their jobs."""
    monkeypatch.setattr(pacing, "RETENTION_SECONDS", 3.0)
    async with RayClient(ClusterConfig(url=jobs.url, job_retention=7)) as client, retention(client, "prod"):
        await asyncio.sleep(0.5)
        assert not jobs.requests
        while len(jobs.jobs) > len(KEPT):
            await asyncio.sleep(0.01)


async def test_a_retention_delays_nobody(jobs: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "RETENTION_SECONDS", 0.1)
    jobs.fail("hang", path="/api/jobs/", times=9)
    async with RayClient(ClusterConfig(url=jobs.url, job_retention=7)) as client:
        started = time.monotonic()
        async with retention(client, "prod"):
            while not jobs.asked("GET", "/api/jobs/"):
                await asyncio.sleep(0.01)
        assert time.monotonic() - started < 2
        jobs.faults.clear()
        # What was cut short is due at once.
        monkeypatch.setattr(pacing, "RETENTION_SECONDS", HOUR)
        async with retention(client, "prod"):
            while len(jobs.jobs) > len(KEPT):
                await asyncio.sleep(0.01)


async def test_a_fault_is_left_to_the_next_time(
    jobs: FakeDashboard, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "RETENTION_SECONDS", 0.1)
    jobs.fail(403, path="/api/jobs/", times=9)
    async with RayClient(ClusterConfig(url=jobs.url, job_retention=7)) as client, retention(client, "prod"):
        while "cannot be deleted" not in caplog.text:
            await asyncio.sleep(0.01)
    assert not jobs.asked("DELETE", "/")


async def test_without_a_retention_nothing_is_asked(
    client: RayClient, jobs: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "RETENTION_SECONDS", 0.0)
    async with retention(client, "prod"):
        await asyncio.sleep(0.1)
    assert not jobs.requests
