from __future__ import annotations

import asyncio
import logging
import re
import time
from itertools import islice
from typing import Any

import pytest
from msgspec.structs import replace

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.models import JobDetails, Node
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.api.retry import retrying
from airflow_provider_ray.client.errors import (
    RayAuthError,
    RayClusterUnavailable,
    RayError,
    RayJobLost,
    RayNotFound,
)
from airflow_provider_ray.client.jobs import waiting
from airflow_provider_ray.client.jobs.driver_log import DriverLog
from airflow_provider_ray.client.jobs.waiting import find_job, stop_job, wait_for_job, wait_for_submission
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.fake_dashboard.state import NODE_ID
from tests.lines import Lines

pytestmark = pytest.mark.anyio


async def submitted(client: RayClient, fake: FakeDashboard, name: str = "j1", **outcome: Any) -> None:
    fake.outcomes[name] = Outcome(**outcome)
    await client.jobs.submit(JobSpec(entrypoint="true", submission_id=name))


@pytest.mark.parametrize(
    "end",
    [
        {"status": "SUCCEEDED"},
        {"status": "FAILED", "exit_code": 3, "error_type": "JOB_ENTRYPOINT_COMMAND_ERROR", "message": "exit 3"},
        {"status": "STOPPED", "exit_code": None},
    ],
)
async def test_every_end_ends_the_wait(client: RayClient, fake: FakeDashboard, end: dict[str, Any]) -> None:
    await submitted(client, fake, running_after=0.1, ends_after=0.3, **end)
    job = await wait_for_job(client, "j1", poll_interval=0.05)
    assert job.status == end["status"]
    assert job.driver_exit_code == end.get("exit_code", 0)
    assert (job.error_type, job.message) == (end.get("error_type"), end.get("message"))


async def test_looks_come_less_often_up_to_the_interval(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "FIRST_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(pacing, "QUICK_SECONDS", 0.0)
    pauses = list(islice(waiting.intervals(0.2), 20))
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (pacing.SHORTEST_INTERVAL_SECONDS, 0.2)
    await submitted(client, fake, ends_after=1.0)
    await wait_for_job(client, "j1", poll_interval=0.2)
    assert len(fake.asked("GET", "/api/jobs/j1")) <= 14


async def test_an_unknown_job_ends_the_wait_at_the_second_look(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "SECOND_LOOK_SECONDS", 0.1)
    with pytest.raises(RayNotFound, match=r"Job j1 does not exist"):
        await wait_for_job(client, "j1", poll_interval=0.1)
    assert [request.path for request in fake.requests] == ["/api/jobs/j1", "/api/version", "/api/jobs/j1"]


async def test_passing_faults_do_not_end_the_wait(client: RayClient, fake: FakeDashboard) -> None:
    await submitted(client, fake, ends_after=0.5)
    for fault in (503, "close"):
        fake.fail(fault, path="/api/jobs/j1")
    assert (await wait_for_job(client, "j1", poll_interval=0.1)).status == "SUCCEEDED"


async def test_a_permanent_fault_ends_the_wait_at_once(client: RayClient, fake: FakeDashboard) -> None:
    await submitted(client, fake, ends_after=None)
    fake.token = "changed"
    with pytest.raises(RayAuthError, match=r"401"):
        await wait_for_job(client, "j1", poll_interval=0.1)
    assert len(fake.asked("GET", "/api/jobs/j1")) == 1


async def test_patience_has_an_end(client: RayClient, fake: FakeDashboard) -> None:
    fake.fail(503, times=99)
    started = time.monotonic()
    with pytest.raises(RayClusterUnavailable, match=r"503"):
        await retrying(client.jobs.list, budget=1.0)
    assert 1.0 <= time.monotonic() - started < 5
    assert len(fake.requests) >= 2


async def test_the_log_says_what_is_being_sat_out_and_how_it_ended(
    client: RayClient, fake: FakeDashboard, caplog: pytest.LogCaptureFixture
) -> None:
    fake.fail(503, times=1)
    await retrying(client.jobs.list, budget=30)
    fake.fail(503, times=9)
    with pytest.raises(RayClusterUnavailable):
        await retrying(client.jobs.list, budget=5)
    said = [(record.levelname, record.getMessage()) for record in caplog.records if "retry" in record.name]
    fault = f"GET {fake.url}/api/jobs/: 503: fault. Retrying for up to"
    expected = [
        ("WARNING", f"{fault} 30 s"),
        ("INFO", r"The cluster answers again, after \d s"),
        ("WARNING", f"{fault} 5 s"),
        ("WARNING", r"Giving up after \d attempts in \d+ s"),
    ]
    assert len(said) == len(expected)
    for (level, line), (expected_level, pattern) in zip(said, expected, strict=True):
        assert level == expected_level
        assert re.fullmatch(pattern, line)


async def test_a_short_budget_is_not_worth_a_line(
    client: RayClient, fake: FakeDashboard, caplog: pytest.LogCaptureFixture
) -> None:
    fake.fail(503, times=1)
    await retrying(client.jobs.list, budget=4)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


async def test_patience_is_for_our_errors_only() -> None:
    calls = []

    async def broken() -> None:
        calls.append(1)
        raise ConnectionError("not of this package")

    with pytest.raises(ConnectionError):
        await retrying(broken)
    assert len(calls) == 1


async def test_when_the_time_is_up_the_job_is_as_last_seen(client: RayClient, fake: FakeDashboard) -> None:
    await submitted(client, fake, ends_after=None)
    started = time.monotonic()
    job = await wait_for_job(client, "j1", poll_interval=30, timeout=0.5)
    assert job.status == "RUNNING"
    assert 0.5 <= time.monotonic() - started < 3
    assert fake.asked("POST", "/api/jobs/j1/stop") == []


async def test_a_late_job_is_stopped_and_its_last_words_are_delivered(client: RayClient, fake: FakeDashboard) -> None:
    log = [(0.0, b"working\n"), (0.8, b"cleaning up")]
    await submitted(client, fake, ends_after=None, stop_after=0.5, log=log)
    lines = Lines()
    job = await wait_for_job(client, "j1", poll_interval=0.1, timeout=0.5, owned=True, log=DriverLog(client, lines))
    assert job.status == "RUNNING"
    assert fake.jobs["j1"].status == "STOPPED"
    assert lines == ["working", "cleaning up"]


async def test_a_job_that_ends_while_it_is_stopped_has_ended(client: RayClient, fake: FakeDashboard) -> None:
    await submitted(client, fake, ends_after=0.8, stop_after=None)
    job = await wait_for_job(client, "j1", poll_interval=0.1, timeout=0.2, owned=True)
    assert job.status == "SUCCEEDED"


async def test_a_job_that_does_not_stop_is_a_warning(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pacing, "STOP_CONFIRM_SECONDS", 0.5)
    await submitted(client, fake, ends_after=None, stop_after=None)
    job = await wait_for_job(client, "j1", poll_interval=0.1, timeout=0.1, owned=True)
    assert job.status == "RUNNING"
    assert "'j1' has not stopped yet after a stop request" in caplog.text


async def test_a_stop_that_is_not_answered_is_an_error_in_the_log(
    client: RayClient, fake: FakeDashboard, caplog: pytest.LogCaptureFixture
) -> None:
    await submitted(client, fake, ends_after=None)
    fake.fail(400, method="POST", path="/api/jobs/j1/stop")
    job = await wait_for_job(client, "j1", poll_interval=0.1, timeout=0.1, owned=True)
    assert job.status == "RUNNING"
    assert "'j1' could not be stopped and may still be running" in caplog.text


async def test_a_job_of_somebody_else_is_not_stopped(client: RayClient, fake: FakeDashboard) -> None:
    await submitted(client, fake, ends_after=None)
    assert await stop_job(client, "j1", nonce="another") is None
    assert fake.jobs["j1"].status == "RUNNING"


async def test_an_unknown_status_is_waited_out_and_told_once(
    client: RayClient, fake: FakeDashboard, caplog: pytest.LogCaptureFixture
) -> None:
    await submitted(client, fake, ends_after=0.5, meanwhile="HIBERNATING")
    assert (await wait_for_job(client, "j1", poll_interval=0.05)).status == "SUCCEEDED"
    assert [record.levelno for record in caplog.records if "HIBERNATING" in record.message] == [logging.WARNING]
    await submitted(client, fake, "j2", ends_after=None, meanwhile="HIBERNATING")
    assert (await wait_for_job(client, "j2", poll_interval=0.05, timeout=0.2)).status == "HIBERNATING"


async def test_the_log_comes_while_the_job_runs(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "LOG_READING_SHARE", 1.0)
    log = [(0.0, b"first\n"), (0.6, b"second\n"), (2.0, b"third")]
    await submitted(client, fake, ends_after=2.0, log=log)
    statuses: list[str] = []

    class Watched(Lines):
        def log(self, level: int, message: str, /, *args: object) -> None:
            super().log(level, message, *args)
            statuses.append(fake.jobs["j1"].status)

    lines = Watched()
    await wait_for_job(client, "j1", poll_interval=0.1, log=DriverLog(client, lines))
    assert lines == ["first", "second", "third"]
    assert statuses == ["RUNNING", "RUNNING", "SUCCEEDED"]


async def test_a_broken_log_does_not_end_the_wait(client: RayClient, fake: FakeDashboard) -> None:
    await submitted(client, fake, ends_after=0.3, log=b"x\n")
    fake.fail(404, path="/api/v0/logs/file", times=99)
    job = await wait_for_job(client, "j1", poll_interval=0.1, log=DriverLog(client, Lines()))
    assert job.status == "SUCCEEDED"


async def test_stopping_waits_for_the_end(client: RayClient, fake: FakeDashboard) -> None:
    await submitted(client, fake, ends_after=None, stop_after=0.7)
    fake.fail(503, path="/api/jobs/j1")
    job = await stop_job(client, "j1")
    assert job is not None
    assert (job.status, job.driver_exit_code) == ("STOPPED", None)


async def test_stopping_what_has_ended_or_never_was(client: RayClient, fake: FakeDashboard) -> None:
    await submitted(client, fake)
    job = await stop_job(client, "j1")
    assert job is not None
    assert job.status == "SUCCEEDED"
    assert await stop_job(client, "j2") is None


@pytest.mark.parametrize("text", ["page not found", "Job j1 does not exist"])
async def test_a_404_that_passes_does_not_keep_a_job_from_being_stopped(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """An ingress that is without its backend for a moment."""
    monkeypatch.setattr(pacing, "SECOND_LOOK_SECONDS", 0.2)
    await submitted(client, fake, ends_after=None)
    fake.fail(404, path="/", times=5, text=text)
    job = await stop_job(client, "j1", nonce=None)
    assert job is not None
    assert job.status == "STOPPED"


async def test_what_something_else_answers_does_not_say_that_there_is_no_job(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "SECOND_LOOK_SECONDS", 0.2)
    await submitted(client, fake, ends_after=None)
    fake.fail(404, path="/", times=1000, text="page not found")
    with pytest.raises(RayNotFound):
        await stop_job(client, "j1", within=0.5)


async def test_stopping_what_does_not_stop_has_an_end(client: RayClient, fake: FakeDashboard) -> None:
    await submitted(client, fake, running_after=60, ends_after=None, stop_after=None)
    job = await stop_job(client, "j1", within=0.5)
    assert job is not None
    assert job.status == "PENDING"


async def test_the_newest_job_with_the_metadata_is_found(client: RayClient, fake: FakeDashboard) -> None:
    for name, metadata in (("j1", {"dag": "d"}), ("j2", {"dag": "d", "run": "2"}), ("j3", {"dag": "e"})):
        await client.jobs.submit(JobSpec(entrypoint="true", submission_id=name, metadata=metadata))
        await asyncio.sleep(0.01)
    for wanted, name in (({"dag": "d"}, "j2"), ({"dag": "e"}, "j3")):
        found = await find_job(client, wanted)
        assert found is not None
        assert found.submission_id == name
    assert await find_job(client, {"dag": "d", "run": "3"}) is None


@pytest.mark.parametrize(
    ("wanted", "found"),
    [({"dag": "d"}, "ours"), ({"dag": "d", "airflow_installation": "theirs"}, "theirs"), ({"dag": "e"}, "of-no-one")],
)
async def test_a_job_of_another_airflow_is_found_only_by_its_name(
    client: RayClient, wanted: dict[str, str], found: str
) -> None:
    for name, metadata in (
        ("ours", {"dag": "d", "airflow_installation": "ours"}),
        ("theirs", {"dag": "d", "airflow_installation": "theirs"}),
        ("of-no-one", {"dag": "e"}),
        ("theirs-too", {"dag": "e", "airflow_installation": "theirs"}),
    ):
        await client.jobs.submit(JobSpec(entrypoint="true", submission_id=name, metadata=metadata))
        await asyncio.sleep(0.01)
    job = await find_job(client, wanted, "ours")
    assert job is not None
    assert job.submission_id == found


async def test_a_search_of_a_long_list_lets_others_run(client: RayClient, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [JobDetails(submission_id=f"j{number}", status="RUNNING") for number in range(1000)]

    async def listed() -> list[JobDetails]:
        return jobs

    monkeypatch.setattr(client.jobs, "list", listed)
    searching = asyncio.create_task(find_job(client, {"dag": "d"}))
    turns = 0
    while not searching.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= len(jobs) // pacing.SEARCHED_AT_ONCE
    assert searching.result() is None


async def test_waiting_for_a_job_that_comes_later(client: RayClient, fake: FakeDashboard) -> None:
    async def later() -> None:
        await asyncio.sleep(0.3)
        await client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1", metadata={"dag": "d"}))

    coming = asyncio.create_task(later())
    name, left = await wait_for_submission(client, {"dag": "d"}, poll_interval=0.1, timeout=5)
    await coming
    assert name == "j1"
    assert left is not None
    assert 3 < left < 4.8
    assert await wait_for_submission(client, {"dag": "d"}, poll_interval=0.1, timeout=None) == ("j1", None)


async def test_waiting_for_a_job_that_never_comes(client: RayClient, fake: FakeDashboard) -> None:
    with pytest.raises(RayError, match=r"\{'dag': 'd'\} appeared in time"):
        await wait_for_submission(client, {"dag": "d"}, poll_interval=0.1, timeout=0.2)


async def test_a_wait_can_be_cancelled_at_any_time(client: RayClient, fake: FakeDashboard) -> None:
    await submitted(client, fake, ends_after=None)
    for fault in (None, 503, "hang"):
        if fault is not None:
            fake.fail(fault, path="/api/jobs/j1")
        task = asyncio.create_task(wait_for_job(client, "j1", poll_interval=10))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 1)


async def test_a_job_that_its_cluster_forgets_is_lost(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "SECOND_LOOK_SECONDS", 0.2)
    await submitted(client, fake, ends_after=None)
    waiting_for_it = asyncio.ensure_future(wait_for_job(client, "j1", poll_interval=0.1))
    await asyncio.sleep(0.3)
    forgotten = fake.jobs.pop("j1")
    await asyncio.sleep(0.15)
    fake.jobs["j1"] = forgotten
    await asyncio.sleep(0.3)
    assert not waiting_for_it.done()
    del fake.jobs["j1"]
    with pytest.raises(RayJobLost, match="'j1' is lost: its cluster no longer has a record of it"):
        await waiting_for_it


@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([{"state": "DEAD", "state_message": "no heartbeats"}], "is DEAD \\(no heartbeats\\)"),
        ([], "is no longer in the cluster"),
    ],
)
async def test_a_running_job_without_its_node_is_lost(
    client: RayClient,
    fake: FakeDashboard,
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[dict[str, Any]],
    reason: str,
    owned: bool,
) -> None:
    monkeypatch.setattr(pacing, "NODES_LOOK_SECONDS", 0.3)
    await submitted(client, fake, ends_after=None)
    waiting_for_it = asyncio.ensure_future(wait_for_job(client, "j1", poll_interval=0.1, owned=owned))
    await asyncio.sleep(1)
    assert not waiting_for_it.done()
    fake.nodes[:] = [{**fake.nodes[0], **node} for node in nodes]
    with pytest.raises(RayJobLost, match=f"'j1' is lost: the node .* of its driver {reason}"):
        await waiting_for_it
    assert fake.jobs["j1"].status == ("STOPPED" if owned else "RUNNING")


async def test_a_job_that_waits_for_a_dead_head_is_lost(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "NODES_LOOK_SECONDS", 0.3)
    await submitted(client, fake, running_after=60)
    waiting_for_it = asyncio.ensure_future(wait_for_job(client, "j1", poll_interval=0.1))
    await asyncio.sleep(1)
    assert not waiting_for_it.done()
    fake.nodes[0]["state"] = "DEAD"
    with pytest.raises(RayJobLost, match="'j1' is lost: it has not started, and the head node"):
        await waiting_for_it


async def test_a_head_that_was_dead_before_condemns_no_later_job(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "NODES_LOOK_SECONDS", 0.5)
    fake.nodes[0]["state"] = "DEAD"
    await submitted(client, fake, running_after=60)
    with pytest.raises(RayJobLost):
        await wait_for_job(client, "j1", poll_interval=0.1)
    fake.nodes[0]["state"] = "ALIVE"
    fake.outcomes["j2"] = Outcome(running_after=1.0, ends_after=1.5)
    await client.jobs.submit(JobSpec(entrypoint="true", submission_id="j2"))
    assert (await wait_for_job(client, "j2", poll_interval=0.1)).status == "SUCCEEDED"


async def test_nodes_that_may_not_be_asked_for_are_reported_once(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pacing, "NODES_LOOK_SECONDS", 0.1)
    fake.fail(403, path="/api/v0/nodes", times=1000)
    await submitted(client, fake, ends_after=1.0)
    await wait_for_job(client, "j1", poll_interval=0.1)
    assert len(fake.asked("GET", "/api/v0/nodes")) > 2
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


async def test_nodes_that_cannot_be_asked_for_say_nothing(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "NODES_LOOK_SECONDS", 0.1)
    fake.fail(500, path="/api/v0/nodes", times=1000)
    await submitted(client, fake, ends_after=1.0)
    assert (await wait_for_job(client, "j1", poll_interval=0.1)).status == "SUCCEEDED"
    assert len(fake.asked("GET", "/api/v0/nodes")) > 2


async def test_a_job_that_does_not_start_is_stopped(client: RayClient, fake: FakeDashboard) -> None:
    await submitted(client, fake, running_after=60)
    job = await wait_for_job(client, "j1", poll_interval=0.1, timeout=30, startup_timeout=0.3, owned=True)
    assert job.status == "PENDING"
    assert fake.jobs["j1"].stopped is not None


async def test_a_job_that_has_started_may_take_its_time(client: RayClient, fake: FakeDashboard) -> None:
    await submitted(client, fake, running_after=0.2, ends_after=1.0)
    assert (await wait_for_job(client, "j1", poll_interval=0.1, startup_timeout=0.5)).status == "SUCCEEDED"


async def test_a_404_of_something_else_loses_no_job(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "SECOND_LOOK_SECONDS", 0.2)
    await submitted(client, fake, ends_after=None)
    waiting_for_it = asyncio.ensure_future(wait_for_job(client, "j1", poll_interval=0.1, owned=True))
    await asyncio.sleep(0.3)
    fake.fail(404, path="/", times=1000, text="page not found")
    await asyncio.sleep(1)
    assert not waiting_for_it.done()
    fake.faults.clear()
    fake.jobs["j1"].outcome = Outcome()
    assert (await waiting_for_it).status == "SUCCEEDED"


async def test_something_else_that_stays_makes_the_cluster_unavailable(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "SECOND_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(pacing, "FAULT_BUDGET_SECONDS", 1.0)
    await submitted(client, fake, ends_after=None)
    fake.fail(200, path="/", times=1000, text="<html>maintenance</html>")
    with pytest.raises(RayClusterUnavailable, match="which is not Ray's JSON"):
        await wait_for_job(client, "j1", poll_interval=0.1, owned=True)
    assert fake.jobs["j1"].status == "RUNNING"


async def test_a_node_that_is_younger_than_a_look_is_not_missed(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "NODES_LOOK_SECONDS", 0.3)
    job = JobDetails(submission_id="j1", status="RUNNING", driver_node_id="new")
    looks = 0
    sample = client.cluster.nodes

    async def slow() -> list[Node]:
        nonlocal looks
        looks += 1
        nodes = await sample()
        await asyncio.sleep(0.5)
        return nodes

    monkeypatch.setattr(client.cluster, "nodes", slow)
    await asyncio.sleep(0.3)
    first = asyncio.ensure_future(client.health.why_lost(replace(job, driver_node_id=NODE_ID)))
    await asyncio.sleep(0.2)
    assert await client.health.why_lost(job) is None
    fake.nodes.append({**fake.nodes[0], "node_id": "new"})
    assert await first is None
    for _ in range(3):
        await asyncio.sleep(0.3)
        assert await client.health.why_lost(job) is None
    assert looks >= 3


async def test_a_job_that_succeeds_while_it_is_given_up_is_not_lost(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "NODES_LOOK_SECONDS", 0.2)
    await submitted(client, fake, ends_after=1.5, stop_after=None, log=[(1.4, b"last words")])
    fake.nodes.clear()
    lines = Lines()
    job = await wait_for_job(client, "j1", poll_interval=0.1, owned=True, log=DriverLog(client, lines))
    assert (job.status, lines) == ("SUCCEEDED", ["last words"])


@pytest.mark.parametrize("ends", [{"timeout": 1.0}, {"startup_timeout": 1.0}])
async def test_nodes_that_hang_do_not_hold_up_a_deadline(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch, ends: Any
) -> None:
    monkeypatch.setattr(pacing, "NODES_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(pacing, "NODES_ANSWER_SECONDS", 30.0)
    await submitted(client, fake, running_after=60.0 if "startup_timeout" in ends else 0.0, ends_after=None)
    fake.fail("hang", path="/api/v0/nodes", times=99)
    started = time.monotonic()
    job = await wait_for_job(client, "j1", poll_interval=0.1, **ends)
    assert job.status in ("RUNNING", "PENDING")
    assert 1.0 <= time.monotonic() - started < 1.8
    assert fake.asked("GET", "/api/v0/nodes")


async def test_nodes_that_hang_do_not_hold_up_the_end_of_a_job(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "NODES_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(pacing, "NODES_ANSWER_SECONDS", 0.1)
    await submitted(client, fake, ends_after=0.6)
    fake.fail("hang", path="/api/v0/nodes", times=99)
    started = time.monotonic()
    assert (await wait_for_job(client, "j1", poll_interval=0.1)).status == "SUCCEEDED"
    assert time.monotonic() - started < 1.6
