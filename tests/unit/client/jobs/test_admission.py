"""Who submits to a cluster that takes a few jobs at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_ray.client import errors, pacing
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.models import JobDetails
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.jobs import admission
from airflow_provider_ray.client.jobs.admission import place
from airflow_provider_ray.client.jobs.submission import NONCE_KEY, post
from airflow_provider_ray.client.sharing.shared_client import shared_client
from tests.fake_dashboard import FakeDashboard, Outcome

pytestmark = pytest.mark.anyio
PATH = "/api/jobs/"


def spec(name: str, **fields: Any) -> JobSpec:
    return JobSpec(entrypoint="true", submission_id=name, metadata={NONCE_KEY: f"nonce of {name}"}, **fields)


async def submit(
    fake: FakeDashboard,
    job: JobSpec,
    *,
    limit: int | None = 1,
    poll_interval: float = 0.1,
    timeout: float | None = None,
    waits: Callable[[str], None] = lambda _: None,
) -> JobDetails | None:
    """Wait for room and submit a job, unless it is there."""
    async with (
        shared_client(ClusterConfig(url=fake.url, max_jobs=limit)) as client,
        place(client, job, poll_interval=poll_interval, timeout=timeout, waits=waits) as found,
    ):
        if found is None:
            await post(client, job)
        return found


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.02)


async def give_up(waiting: asyncio.Task[Any]) -> None:
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting


def most_at_a_time(fake: FakeDashboard) -> int:
    """How many jobs were active at the same moment, all of which took as long as they say."""
    times = [(job.submitted, job.submitted + (job.outcome.ends_after or 0)) for job in fake.jobs.values()]
    return max(sum(begin <= moment < end for begin, end in times) for moment, _ in times)


def lists(fake: FakeDashboard) -> int:
    return sum((each.method, each.path) == ("GET", PATH) for each in fake.requests)


async def test_the_limit_is_never_exceeded_and_all_get_their_turn(fake: FakeDashboard) -> None:
    fake.default_outcome = Outcome(ends_after=0.7)
    started = time.monotonic()
    await asyncio.gather(*(submit(fake, spec(f"j{number}"), limit=3) for number in range(20)))
    seconds = time.monotonic() - started
    assert len(fake.jobs) == 20
    assert most_at_a_time(fake) == 3
    # However many wait, they share one list a second.
    assert lists(fake) <= seconds + 2


async def test_first_come_first_served(fake: FakeDashboard) -> None:
    fake.default_outcome = Outcome(ends_after=0.3)
    names = [f"j{number}" for number in (3, 1, 4, 2, 5)]
    await asyncio.gather(*(submit(fake, spec(name)) for name in names))
    assert list(fake.jobs) == names


async def test_without_a_limit_nothing_is_asked(fake: FakeDashboard) -> None:
    fake.default_outcome = Outcome(ends_after=None)
    await asyncio.gather(*(submit(fake, spec(f"j{number}"), limit=None) for number in range(5)))
    assert lists(fake) == 0


async def test_who_waits_hears_once_for_what(fake: FakeDashboard) -> None:
    fake.default_outcome = Outcome(ends_after=2.5)
    said: list[str] = []
    await asyncio.gather(*(submit(fake, spec(f"j{number}"), limit=3, waits=said.append) for number in range(4)))
    assert said == ["3 of 3 jobs in flight"]


async def test_who_gives_up_makes_way(fake: FakeDashboard) -> None:
    fake.default_outcome = Outcome(ends_after=1.5)
    await submit(fake, spec("first"))
    second, third = (asyncio.create_task(submit(fake, spec(name))) for name in ("second", "third"))
    await asyncio.sleep(0.3)
    await give_up(second)
    await third
    assert list(fake.jobs) == ["first", "third"]


async def test_who_gives_up_when_it_is_admitted_makes_way_at_once(
    fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the admission of a job and its next step."""
    admit, admitted = admission._InFlight._admit, asyncio.Event()

    def observed(line: Any) -> None:
        admit(line)
        if "second" in line._admitted:
            assert asyncio.current_task() is third
            second.cancel()
            admitted.set()

    # The second looks when it comes and then hardly ever.
    monkeypatch.setattr(pacing, "FIRST_INTERVAL_SECONDS", 60.0)
    monkeypatch.setattr(admission._InFlight, "_admit", observed)
    fake.default_outcome = Outcome(ends_after=1.2)
    await submit(fake, spec("first"))
    second = asyncio.create_task(submit(fake, spec("second"), poll_interval=60))
    third = asyncio.create_task(submit(fake, spec("third"), poll_interval=0.1))
    async with asyncio.timeout(10):
        await third
    assert second.cancelled()
    assert admitted.is_set()
    assert list(fake.jobs) == ["first", "third"]


async def test_a_submission_that_is_refused_makes_way(fake: FakeDashboard) -> None:
    fake.fail(400, method="POST", path=PATH)
    async with shared_client(ClusterConfig(url=fake.url, max_jobs=1)), asyncio.timeout(10):
        with pytest.raises(errors.RayRequestRefused):
            await submit(fake, spec("first"))
        await submit(fake, spec("second"))


async def test_a_submission_whose_fate_is_unknown_counts_for_a_while(
    fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "UNSEEN_SECONDS", 2.0)
    fake.fail("hang", method="POST", path=PATH)
    async with shared_client(ClusterConfig(url=fake.url, max_jobs=1)):
        first = asyncio.create_task(submit(fake, spec("first")))
        await until(lambda: fake.asked("POST", PATH))
        await give_up(first)
        given_up = time.monotonic()
        await submit(fake, spec("second"))
    assert time.monotonic() - given_up > 1.9


async def test_only_what_this_package_submitted_counts(fake: FakeDashboard) -> None:
    fake.default_outcome = Outcome(ends_after=None)
    async with shared_client(ClusterConfig(url=fake.url)) as client:
        await client.jobs.submit(JobSpec(entrypoint="true", submission_id="somebody-elses"))
    async with asyncio.timeout(10):
        await submit(fake, spec("ours"))
    with pytest.raises(errors.RayJobTimeout):
        await submit(fake, spec("another"), timeout=0.5)


async def test_a_job_that_is_there_needs_no_room(fake: FakeDashboard) -> None:
    fake.default_outcome = Outcome(ends_after=None)
    await submit(fake, spec("first"))
    found = await submit(fake, spec("first"))
    assert found is not None
    assert found.submission_id == "first"
    assert len(fake.asked("POST", PATH)) == 1


async def test_a_job_of_another_under_the_same_id_is_not_taken_for_ours(fake: FakeDashboard) -> None:
    await submit(fake, spec("taken"))
    other = JobSpec(entrypoint="true", submission_id="taken", metadata={NONCE_KEY: "another"})
    with pytest.raises(errors.RayConfigError, match="'taken', which another job"):
        await submit(fake, other)


async def test_waiting_can_have_an_end(fake: FakeDashboard) -> None:
    fake.default_outcome = Outcome(ends_after=None)
    await submit(fake, spec("first"))
    with pytest.raises(errors.RayJobTimeout, match="'second' was not submitted: no room within .*, 1 of 1 jobs"):
        await submit(fake, spec("second"), timeout=0.5)
    assert list(fake.jobs) == ["first"]


async def test_a_cluster_that_dies_ends_the_wait(fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "FAULT_BUDGET_SECONDS", 0.5)
    fake.default_outcome = Outcome(ends_after=None)
    await submit(fake, spec("first"))
    second = asyncio.create_task(submit(fake, spec("second")))
    await asyncio.sleep(0.3)
    fake.fail("close", times=1000)
    with pytest.raises(errors.RayClusterUnavailable):
        await second


async def test_an_uploaded_package_is_kept_while_jobs_wait(
    fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "PACKAGE_SECONDS", 1.0)
    fake.default_outcome = Outcome(ends_after=None)
    await submit(fake, spec("first"))
    fake.packages["gcs://_ray_pkg_1.zip"] = b""
    env = {"working_dir": "gcs://_ray_pkg_1.zip"}
    others = [asyncio.create_task(submit(fake, spec(f"j{number}", runtime_env=env))) for number in range(5)]
    await asyncio.sleep(2.8)
    # One asks for all.
    assert 2 <= len(fake.asked("GET", "/api/packages/")) <= 3
    fake.packages.clear()
    for each in await asyncio.gather(*others, return_exceptions=True):
        assert isinstance(each, errors.RayTriggerError)
        assert "has lost gcs://_ray_pkg_1.zip" in str(each)
    assert list(fake.jobs) == ["first"]
