"""Many who wait for jobs of one cluster, and what the cluster sees of them."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import repeat
from math import inf
from time import monotonic, sleep
from typing import Any

import msgspec
import pytest

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.jobs import Jobs, Polls
from airflow_provider_ray.client.api.models import JobDetails
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import (
    RayAuthError,
    RayAuthLapsed,
    RayClusterUnavailable,
    RayJobLost,
    RayJobTimeout,
    RayNotFound,
)
from airflow_provider_ray.client.jobs.driver_log import DriverLog
from airflow_provider_ray.client.jobs.waiting import wait_for_job, wait_for_submission
from airflow_provider_ray.client.sharing.shared_client import SharedClient, shared_client
from airflow_provider_ray.client.sharing.shared_jobs import SharedJobs
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.fake_dashboard.state import Job
from tests.lines import Lines

pytestmark = pytest.mark.anyio
PATH = "/api/jobs/"


async def submit(fake: FakeDashboard, number: int, **outcome: Any) -> list[str]:
    names = [f"j{index}" for index in range(number)]
    async with RayClient(ClusterConfig(url=fake.url, token=fake.token)) as client:
        for name in names:
            fake.outcomes[name] = Outcome(**outcome)
            await client.jobs.submit(JobSpec(entrypoint="true", submission_id=name))
    return names


async def wait(fake: FakeDashboard, name: str) -> str:
    async with shared_client(ClusterConfig(url=fake.url, token=fake.token)) as client:
        return (await wait_for_job(client, name, poll_interval=0.2)).status


async def test_many_waits_cost_a_request_a_second(fake: FakeDashboard) -> None:
    names = await submit(fake, 200, ends_after=4.0)
    states = await asyncio.gather(*(wait(fake, name) for name in names))
    assert states == ["SUCCEEDED"] * 200
    assert 1 <= len(fake.asked("GET", PATH)) <= 7


async def test_few_waits_read_no_list(fake: FakeDashboard) -> None:
    names = await submit(fake, 3, ends_after=2.0)
    await asyncio.gather(*(wait(fake, name) for name in names))
    assert not [request for request in fake.requests if (request.method, request.path) == ("GET", PATH)]
    assert len(fake.asked("GET", PATH)) <= 12


async def test_a_list_that_costs_more_than_it_saves_is_not_read_again(
    fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = Jobs.list

    async def slow(self: Jobs) -> Any:
        await asyncio.sleep(1)
        return await quick(self)

    monkeypatch.setattr(Jobs, "list", slow)
    monkeypatch.setattr(pacing, "SLOW_ANSWER_SHARE", 1.0)
    names = await submit(fake, 10, ends_after=5.0)
    assert set(await asyncio.gather(*(wait(fake, name) for name in names))) == {"SUCCEEDED"}
    assert len([request for request in fake.requests if (request.method, request.path) == ("GET", PATH)]) == 1


@pytest.mark.parametrize(
    ("number", "list_seconds", "pays"),
    [(3, 0.0, False), (10, 0.015, True), (10, 1.0, False), (333, 3.0, True), (333, inf, False)],
)
async def test_the_cluster_is_kept_busy_as_little_as_can_be(number: int, list_seconds: float, pays: bool) -> None:
    jobs = SharedClient(ClusterConfig(url="http://127.0.0.1:1")).jobs
    jobs._listed.asked_at, jobs._listed.took = monotonic() - list_seconds, list_seconds
    if list_seconds == inf:
        jobs._listed.asked_at, jobs._listed.took, jobs._avoids_lists = monotonic(), 0.0, True
    assert jobs._listing_pays(number) == pays


async def test_many_searches_cost_a_list_a_second(fake: FakeDashboard) -> None:
    async def search(number: int) -> str:
        async with shared_client(ClusterConfig(url=fake.url)) as client:
            found, _ = await wait_for_submission(client, {"shard": str(number)}, poll_interval=0.2, timeout=None)
            return found

    searches = asyncio.gather(*(search(number) for number in range(50)))
    await asyncio.sleep(3)
    assert 2 <= len(fake.asked("GET", PATH)) <= 4
    async with RayClient(ClusterConfig(url=fake.url)) as client:
        for number in range(50):
            await client.jobs.submit(
                JobSpec(entrypoint="true", submission_id=f"j{number}", metadata={"shard": str(number)})
            )
    assert await searches == [f"j{number}" for number in range(50)]


async def test_searches_and_waits_share_the_list(fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedJobs, "_listing_pays", _pays_unless_it_fails)
    names = await submit(fake, 30, ends_after=6.0)
    waits = [asyncio.create_task(wait(fake, name)) for name in names]
    async with shared_client(ClusterConfig(url=fake.url)) as client:
        search = wait_for_submission(client, {"shard": "none"}, poll_interval=0.2, timeout=5.0)
        with pytest.raises(RayJobTimeout):
            await search
        asked = [request for request in fake.asked("GET", PATH) if request.path == PATH]
        assert 3 <= len(asked) <= 7
    assert set(await asyncio.gather(*waits)) == {"SUCCEEDED"}


async def test_a_list_that_fails_fails_those_who_asked_and_nobody_later(
    fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "LONGEST_PAUSE_SECONDS", 0.1)
    await submit(fake, 1)
    fake.fail(503, path=PATH)
    async with shared_client(ClusterConfig(url=fake.url)) as client:
        answers = await asyncio.gather(client.jobs.list(), client.jobs.list(), return_exceptions=True)
        assert {type(answer) for answer in answers} == {RayClusterUnavailable}
        await asyncio.sleep(pacing.ROUND_SECONDS + 0.2)
        assert [job.submission_id for job in await client.jobs.list()] == ["j0"]


async def test_each_gets_the_state_of_its_own_job(fake: FakeDashboard) -> None:
    names = await submit(fake, 20, ends_after=None)
    fake.jobs["j7"].outcome = Outcome(status="FAILED")
    del fake.jobs["j8"]
    async with shared_client(ClusterConfig(url=fake.url)) as client:
        answers = await asyncio.gather(*(client.jobs.get(name) for name in names), return_exceptions=True)
    assert isinstance(answers[8], RayNotFound)
    assert "j8" in str(answers[8])
    found = [answer for answer in answers if isinstance(answer, JobDetails)]
    others = [name for name in names if name != "j8"]
    assert [job.submission_id for job in found] == others
    assert [job.status for job in found] == ["FAILED" if name == "j7" else "RUNNING" for name in others]


async def test_a_transient_fault_reaches_everybody(fake: FakeDashboard) -> None:
    names = await submit(fake, 10, ends_after=None)
    fake.fail(503, path=PATH, times=2)
    async with shared_client(ClusterConfig(url=fake.url)) as client:
        answers = await asyncio.gather(*(client.jobs.get(name) for name in names), return_exceptions=True)
        assert [type(answer) for answer in answers] == [RayClusterUnavailable] * 10
        assert (await client.jobs.get("j0")).status == "RUNNING"


async def test_a_cluster_that_comes_back_is_not_asked_for_each_job(
    fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SharedJobs, "_listing_pays", _pays_unless_it_fails)
    names = await submit(fake, 30, ends_after=6.0)
    waits = [asyncio.create_task(wait(fake, name)) for name in names]
    await asyncio.sleep(2)
    asked = len(fake.asked("GET", PATH))
    fake.fail(503, path=PATH, times=10**6)
    await asyncio.sleep(2.5)
    fake.faults.clear()
    assert set(await asyncio.gather(*waits)) == {"SUCCEEDED"}
    # While it is away, one list and one single request fail for everyone in a round.
    assert len(fake.asked("GET", PATH)) - asked < 30


async def test_a_wait_sleeps_until_its_job_has_news(fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is woken for a round without news, which is what keeps ten thousand waits cheap."""
    names = await submit(fake, 30, ends_after=5.0)
    fake.jobs["j0"].outcome = Outcome(ends_after=2.0)
    woken, get = [], SharedJobs.get

    async def counted(jobs: SharedJobs, submission_id: str) -> JobDetails:
        woken.append(submission_id)
        return await get(jobs, submission_id)

    monkeypatch.setattr(SharedJobs, "get", counted)
    waits = [asyncio.create_task(wait(fake, name)) for name in names]
    await asyncio.sleep(4)
    lists = len([request for request in fake.asked("GET", PATH) if request.path == PATH])
    # Each asked once when it began; the job that has ended was in the news.
    assert sorted(woken) == sorted(names)
    assert lists >= 3
    assert set(await asyncio.gather(*waits)) == {"SUCCEEDED"}
    assert sorted(woken) == sorted(names)


@pytest.mark.parametrize("number", [1, 3, 4])
async def test_an_end_is_noticed_in_the_round_that_sees_it(fake: FakeDashboard, number: int) -> None:
    names = await submit(fake, number, ends_after=3.0)
    started = monotonic()
    assert set(await asyncio.gather(*(wait(fake, name) for name in names))) == {"SUCCEEDED"}
    assert monotonic() - started < 3.0 + pacing.ROUND_SECONDS + 0.6
    asked = len(fake.asked("GET", PATH))
    assert asked <= (5 if number >= pacing.LIST_FROM else 5 * number)


async def test_an_end_shortly_before_the_time_is_up_is_noticed_in_the_round_that_sees_it(fake: FakeDashboard) -> None:
    (name,) = await submit(fake, 1, ends_after=2.5)
    started = monotonic()
    async with shared_client(ClusterConfig(url=fake.url)) as client:
        job = await wait_for_job(client, name, poll_interval=0.2, timeout=20.0)
    assert job.status == "SUCCEEDED"
    assert monotonic() - started < 2.5 + pacing.ROUND_SECONDS + 0.3
    assert len(fake.asked("GET", PATH)) <= 5


async def test_news_in_the_moment_the_wait_ends_is_not_lost(fake: FakeDashboard) -> None:
    (name,) = await submit(fake, 1, ends_after=None)
    async with shared_client(ClusterConfig(url=fake.url)) as client:
        jobs = client.jobs
        assert isinstance(jobs, SharedJobs)
        job = await jobs.get(name)
        waits = asyncio.create_task(jobs.wait_for_news(job, Polls(repeat(60.0)), 0.2))
        await asyncio.sleep(0.1)
        (watch,) = jobs._watches
        ended = msgspec.structs.replace(job, status="SUCCEEDED")
        # Both timers are over when the event loop looks at them next.
        asyncio.get_running_loop().call_later(0.15, watch.wake, ended)
        sleep(0.4)
        assert await waits == ended


async def test_a_driver_is_polled_by_its_job_id(fake: FakeDashboard) -> None:
    """Ray finds drivers that did not come through the Jobs API by their job_id, as they have no submission_id."""
    driver = {"type": "DRIVER", "job_id": "01000000", "submission_id": None, "entrypoint": "python main.py"}
    fake.jobs["01000000"] = Job(driver, Outcome(ends_after=2.5))
    assert await wait(fake, "01000000") == "SUCCEEDED"
    assert {request.path for request in fake.asked("GET", PATH)} == {f"{PATH}01000000"}


async def test_waits_that_keep_beginning_do_not_put_off_the_round(fake: FakeDashboard) -> None:
    names = await submit(fake, 200, ends_after=2.0)
    started = monotonic()
    waits = []
    for name in names:
        waits.append(asyncio.create_task(wait(fake, name)))
        await asyncio.sleep(0.03)
        if any(task.done() for task in waits):
            break
    # They began 30 ms apart, for six seconds in all.
    assert 2.0 < monotonic() - started < 4.5
    assert set(await asyncio.gather(*waits)) == {"SUCCEEDED"}


async def test_with_its_log_a_job_is_polled_no_more_often(fake: FakeDashboard) -> None:
    names = await submit(fake, 1, ends_after=5.0, log=[(number / 4, b"line\n") for number in range(18)])
    async with shared_client(ClusterConfig(url=fake.url)) as client:
        lines = Lines()
        await wait_for_job(client, names[0], poll_interval=1.0, log=DriverLog(client, lines))
    assert len(lines) == 18
    polls = [request for request in fake.requests if request.path == f"{PATH}j0"]
    reads = [request for request in fake.requests if request.path == "/api/v0/logs/file"]
    assert 5 <= len(polls) <= 7
    # One read for each poll but the first, when no log was there yet.
    assert len(polls) - 2 <= len(reads) <= len(polls) + 1


async def test_a_list_that_fails_alone_is_tried_again(fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedJobs, "_listing_pays", _pays_unless_it_fails)
    names = await submit(fake, 30, ends_after=4.0)
    fake.fail(503, path=PATH)
    assert set(await asyncio.gather(*(wait(fake, name) for name in names))) == {"SUCCEEDED"}
    assert len(fake.asked("GET", PATH)) < 30 + 10


async def test_a_list_that_hangs_is_left_alone_though_single_requests_fail_at_times(
    fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = []

    async def hangs(self: Jobs) -> Any:
        lists.append(monotonic())
        await asyncio.sleep(1.1)
        raise RayClusterUnavailable("GET /api/jobs/", "no answer in time")

    monkeypatch.setattr(Jobs, "list", hangs)
    names = await submit(fake, 10, ends_after=5.0)
    for number in (3, 5, 7):
        fake.fail(503, path=f"{PATH}j{number}")
    assert set(await asyncio.gather(*(wait(fake, name) for name in names))) == {"SUCCEEDED"}
    assert not fake.faults or all(not fault.times for fault in fake.faults)
    assert len(lists) == 1


async def _ends(tasks: list[asyncio.Task[None]], number: int) -> None:
    while sum(task.done() for task in tasks) < number:
        await asyncio.sleep(0.1)


def _pays_unless_it_fails(jobs: SharedJobs, number: int) -> bool:
    """However slow this host is."""
    return number >= pacing.LIST_FROM and not jobs._avoids_lists


async def test_all_who_miss_their_job_share_a_sign_of_life(
    fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "SECOND_LOOK_SECONDS", 0.5)
    names = await submit(fake, 30, ends_after=None)
    waits = [asyncio.create_task(wait(fake, name)) for name in names]
    await asyncio.sleep(2)
    fake.jobs.clear()
    ended = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(error) for error in ended] == [RayJobLost] * 30
    assert 1 <= len(fake.asked("GET", "/api/version")) <= 10


async def test_logs_that_hang_hold_up_nobody_else(fake: FakeDashboard) -> None:
    class Slow:
        """A bookmark of an Airflow that takes its time."""

        async def find(self, _: str) -> int:
            await asyncio.sleep(0.05)
            return 0

        async def put(self, *_: Any) -> None:
            raise AssertionError("no log can be read")

        async def has_read(self, _: int) -> bool:
            return True

    names = await submit(fake, 120, ends_after=None)
    fake.outcomes["other"] = Outcome(ends_after=3.0)
    fake.fail("hang", path="/api/v0/logs", times=1000)
    config = ClusterConfig(url=fake.url, read_timeout=60)
    async with shared_client(config) as client:
        await client.jobs.submit(JobSpec(entrypoint="true", submission_id="other"))

        async def follow(name: str) -> None:
            await wait_for_job(client, name, poll_interval=0.2, log=DriverLog(client, Lines(), Slow()))

        following = [asyncio.create_task(follow(name)) for name in names]
        async with asyncio.timeout(60):
            while len(fake.asked("GET", "/api/v0/logs")) < pacing.LOGS_AT_ONCE:
                await asyncio.sleep(0.1)
            job = await wait_for_job(client, "other", poll_interval=0.2)
        assert job.status == "SUCCEEDED"
        assert len(fake.asked("GET", "/api/v0/logs")) == pacing.LOGS_AT_ONCE
        # Those who have found no room to read still look at their jobs.
        fake.jobs.clear()
        async with asyncio.timeout(60):
            await _ends(following, len(names) - pacing.LOGS_AT_ONCE)
        for each in following:
            each.cancel()
        await asyncio.gather(*following, return_exceptions=True)


@pytest.mark.parametrize("accepted", [False, True])
async def test_a_fault_of_one_job_concerns_nobody_else(fake: FakeDashboard, accepted: bool) -> None:
    await submit(fake, 3, ends_after=None)
    fake.fail(403, path=f"{PATH}j0")
    async with shared_client(ClusterConfig(url=fake.url), accepted=accepted) as client:
        answers = await asyncio.gather(*(client.jobs.get(f"j{i}") for i in range(3)), return_exceptions=True)
    refused = RayAuthLapsed if accepted else RayAuthError
    assert [type(answer) for answer in answers] == [refused, JobDetails, JobDetails]


async def test_without_a_list_jobs_are_asked_for_one_by_one(
    fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(self: Jobs) -> Any:
        raise RayAuthError("GET /api/jobs/", "403", 403)

    monkeypatch.setattr(Jobs, "list", refused)
    names = await submit(fake, 20, ends_after=1.0)
    assert set(await asyncio.gather(*(wait(fake, name) for name in names))) == {"SUCCEEDED"}


async def test_a_list_that_fails_leaves_no_old_states(fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow this host is.
    monkeypatch.setattr(SharedJobs, "_listing_pays", lambda *_: True)
    names = await submit(fake, 10, ends_after=None)
    async with shared_client(ClusterConfig(url=fake.url)) as client:
        await asyncio.gather(*(client.jobs.get(name) for name in names))
        await asyncio.sleep(1)
        for job in fake.jobs.values():
            job.outcome = Outcome()
        fake.fail(500, path=PATH)
        for _ in range(2):
            answers = await asyncio.gather(*(client.jobs.get(name) for name in names))
            assert {answer.status for answer in answers} == {"SUCCEEDED"}


async def test_one_who_gives_up_does_not_disturb_the_others(fake: FakeDashboard) -> None:
    names = await submit(fake, 10, ends_after=3.0)
    waits = [asyncio.ensure_future(wait(fake, name)) for name in names]
    for index, delay in enumerate((0.0, 0.02, 0.5)):
        await asyncio.sleep(delay)
        waits[index].cancel()
    for given_up in waits[:3]:
        with contextlib.suppress(asyncio.CancelledError):
            await given_up
        assert given_up.cancelled()
    assert await asyncio.gather(*waits[3:]) == ["SUCCEEDED"] * 7


async def test_two_who_wait_for_the_same_job_do_not_depend_on_each_other(fake: FakeDashboard) -> None:
    (name,) = await submit(fake, 1, ends_after=1.0)
    given_up, waits = asyncio.ensure_future(wait(fake, name)), asyncio.ensure_future(wait(fake, name))
    await asyncio.sleep(0.02)
    given_up.cancel()
    assert await waits == "SUCCEEDED"
    assert given_up.cancelled()


async def test_what_nobody_waits_for_any_more_is_not_asked_for(fake: FakeDashboard) -> None:
    names = await submit(fake, 2, ends_after=1.0)
    async with shared_client(ClusterConfig(url=fake.url)) as client:
        asking = [asyncio.ensure_future(client.jobs.get(name)) for name in names]
        await asyncio.sleep(0)
        asking[0].cancel()
        assert (await asking[1]).submission_id == names[1]
    assert [request.path for request in fake.asked("GET", PATH)] == [f"{PATH}{names[1]}"]


async def test_the_last_one_closes_the_client(fake: FakeDashboard) -> None:
    config = ClusterConfig(url=fake.url)
    async with shared_client(config) as first:
        async with shared_client(config) as second:
            assert second is first
        assert await first.jobs.list() == []
        async with shared_client(ClusterConfig(url=fake.url, token="another")) as other:
            assert other is not first
    with pytest.raises(RuntimeError, match="closed"):
        await first.cluster.version()
    async with shared_client(config) as anew:
        assert await anew.jobs.list() == []


async def test_a_client_that_cannot_be_opened_fails_everybody(fake: FakeDashboard) -> None:
    config = ClusterConfig(url="https://127.0.0.1:1", verify="/no/such/file")

    async def attempt() -> None:
        async with shared_client(config):
            raise AssertionError("It was opened.")

    answers = await asyncio.gather(attempt(), attempt(), return_exceptions=True)
    assert [type(answer).__name__ for answer in answers] == ["RayConfigError"] * 2


async def test_a_list_of_active_jobs_that_takes_long_answers_the_next_ones(
    fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "DETAIL_SECONDS", 0.2)
    monkeypatch.setattr(pacing, "CAPACITY_SECONDS", 0.1)
    listed = Jobs.active

    async def active(jobs: Jobs) -> Any:
        await asyncio.sleep(0.7)
        return await listed(jobs)

    monkeypatch.setattr(Jobs, "active", active)
    async with shared_client(ClusterConfig(url=fake.url)) as client:
        assert (await client.capacity()).running_jobs is None
        # A slow answer rests ten times as long as it took.
        await asyncio.sleep(2.5)
        assert (await client.capacity()).running_jobs == 0
    assert len(fake.asked("GET", "/api/v0/jobs")) == 1


async def test_a_list_that_takes_long_does_not_hold_up_the_waits(
    fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "LONGEST_PAUSE_SECONDS", 0.3)
    names = await submit(fake, 10, ends_after=0.5)
    fake.fail("hang", method="GET", path=PATH + "?", times=9)
    fake.fail("hang", method="GET", path=PATH, times=1)
    started = monotonic()
    assert await asyncio.gather(*(wait(fake, name) for name in names)) == ["SUCCEEDED"] * 10
    assert monotonic() - started < 8
