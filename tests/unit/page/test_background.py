"""What clusters see of a page that many browsers look at, and what these see of clusters that are unwell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from threading import Event
from typing import Any

import pytest

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.fault_words import MANY_RECORDS
from airflow_provider_ray.client.sharing.answer import SharedAnswer
from airflow_provider_ray.client.sync import run_sync
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.page.answers import cluster_answer, fault_in_words
from airflow_provider_ray.page.background import Watcher
from airflow_provider_ray.page.cluster_watch import ClusterWatch
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.conftest import connect

REFRESH, REQUEST, IDLE, LONGEST_PAUSE = 0.2, 1.0, 1.0, 3.0
FIRST_LOOK = ["/api/cluster_status", "/api/serve/applications/", "/api/v0/jobs", "/api/v0/nodes", "/api/version"]


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    monkeypatch.setattr(pacing, "PAGE_REFRESH_SECONDS", REFRESH)
    monkeypatch.setattr(pacing, "PAGE_REQUEST_SECONDS", REQUEST)
    monkeypatch.setattr(pacing, "PAGE_IDLE_SECONDS", IDLE)
    monkeypatch.setattr(pacing, "PAGE_LONGEST_PAUSE_SECONDS", LONGEST_PAUSE)
    made = Watcher()
    yield made
    made.close()


@pytest.fixture
def look(watcher: Watcher) -> Callable[..., ClusterWatch]:
    def at(conn_id: str, *jobs: str) -> ClusterWatch:
        (watch,) = watcher.look({conn_id: jobs})
        return watch

    return at


def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def look_for(seconds: float, look: Callable[[], Any]) -> None:
    """What the browsers of many do."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        look()
        time.sleep(0.02)


def reason(watch: ClusterWatch) -> str | None:
    """What the page says about the health of a cluster."""
    said: str | None = cluster_answer(watch, may_stop=False, dags=())["reason"]
    return said


def paths(fake: FakeDashboard) -> list[str]:
    return [request.path for request in fake.requests]


def submit(fake: FakeDashboard, name: str, **outcome: Any) -> None:
    fake.outcomes[name] = Outcome(**outcome)

    async def post() -> None:
        async with RayClient(ClusterConfig(url=fake.url, token=fake.token)) as client:
            await client.jobs.submit(JobSpec(entrypoint="true", submission_id=name))

    run_sync(post)


def test_a_first_look_asks_for_everything_at_once(dashboard: FakeDashboard, look: Callable[..., ClusterWatch]) -> None:
    dashboard.deploy("model", "/model", {})
    submit(dashboard, "busy", ends_after=None)
    submit(dashboard, "done")
    dashboard.requests.clear()
    watch = look("fake")
    assert (watch.fault, watch.answered_at) == (None, None)
    until(lambda: watch.serve.known_at)
    assert sorted(paths(dashboard)[:5]) == FIRST_LOOK
    assert watch.version.value is not None
    assert watch.version.value.ray_version == "2.60.0"
    assert watch.usage.value is not None
    assert watch.usage.value.total["CPU"] == 2.0
    assert [job.submission_id for job in watch.jobs.value or ()] == ["busy"]
    assert watch.serve.value is not None
    assert list(watch.serve.value.applications) == ["model"]
    assert watch.fault is None


def test_a_hundred_browsers_cost_one_request_per_refresh(
    dashboard: FakeDashboard, look: Callable[..., ClusterWatch]
) -> None:
    until(lambda: look("fake").serve.known_at)
    dashboard.requests.clear()
    look_for(2.0, lambda: [look("fake") for _ in range(100)])
    assert 6 <= len(dashboard.requests) <= 2.0 / (0.9 * REFRESH) + 1


def test_when_nobody_looks_nothing_is_asked_and_the_client_is_closed(
    dashboard: FakeDashboard, look: Callable[..., ClusterWatch]
) -> None:
    watch = look("fake")
    until(lambda: watch.serve.known_at)
    until(lambda: watch._client is None)
    dashboard.requests.clear()
    time.sleep(4 * REFRESH)
    assert not dashboard.requests
    until(lambda: look("fake") is watch and sorted(paths(dashboard)[:5]) == FIRST_LOOK)


def test_a_cluster_that_hangs_costs_others_nothing(
    dashboard: FakeDashboard, fake: FakeDashboard, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, "hanging", fake)
    fake.fail("hang", times=1000)
    started = time.monotonic()
    hanging, well = watcher.look({"hanging": (), "fake": ()})
    assert time.monotonic() - started < 0.1
    until(lambda: well.serve.known_at)
    until(lambda: hanging.fault)
    assert reason(hanging) == "no response in time"
    assert well.fault is None
    dashboard.requests.clear()
    look_for(2.0, lambda: watcher.look({"hanging": (), "fake": ()}))
    assert len(dashboard.requests) >= 6


def test_a_cluster_that_hangs_is_asked_less_and_less_and_at_once_when_it_is_back(
    dashboard: FakeDashboard, look: Callable[..., ClusterWatch]
) -> None:
    until(lambda: look("fake").serve.known_at)
    dashboard.requests.clear()
    dashboard.fail("hang", times=1000)
    look_for(6.0, lambda: look("fake"))
    # After 0.4, 0.8, 1.6 ... seconds, and a second for each answer that does not come.
    assert 2 <= len(dashboard.requests) <= 5
    assert reason(look("fake")) == "no response in time"
    dashboard.faults.clear()
    until(lambda: look("fake").fault is None, 2 * LONGEST_PAUSE)
    known = look("fake")
    assert (known.version.error, known.nodes.error) == (None, None)


@pytest.mark.parametrize(
    ("name", "path"), [("version", "/api/version"), ("nodes", "/api/v0/nodes"), ("jobs", "/api/v0/jobs")]
)
def test_a_single_hiccup_is_over_soon(
    name: str,
    path: str,
    dashboard: FakeDashboard,
    look: Callable[..., ClusterWatch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pacing, "RETRY_SECONDS", 0.5)
    dashboard.fail("close", times=2, path=path)
    until(lambda: getattr(look("fake"), name).error, 3.0)
    assert bool(look("fake").fault) == (name != "jobs")
    until(lambda: getattr(look("fake"), name).error is None, 4.0)
    assert look("fake").fault is None


def test_a_cluster_without_serve_is_healthy(dashboard: FakeDashboard, look: Callable[..., ClusterWatch]) -> None:
    dashboard.fail(501, times=1000, path="/api/serve/")
    until(lambda: look("fake").serve.error)
    until(lambda: look("fake").nodes.known_at)
    answer = cluster_answer(look("fake"), may_stop=False, dags=())
    assert answer["serve_fault"] == "the cluster responded with status 501"
    assert (answer["health"], answer["reason"]) == ("healthy", None)


@pytest.mark.parametrize("kind", ["hang", 500, 403])
def test_a_cluster_whose_jobs_cannot_be_listed_is_healthy(
    dashboard: FakeDashboard, look: Callable[..., ClusterWatch], monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    monkeypatch.setattr(pacing, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(pacing, "PAGE_JOBS_SECONDS", 0.5)
    submit(dashboard, "busy", ends_after=None)
    until(lambda: look("fake").serve.known_at)
    dashboard.fail(kind, times=1000, path="/api/v0/jobs")
    until(lambda: look("fake").jobs.failures >= 2)
    answer = cluster_answer(look("fake"), may_stop=False, dags=())
    assert (answer["health"], answer["reason"]) == ("healthy", None)
    assert (answer["running"], answer["pending"], answer["active"], answer["jobs"]) == (None, None, None, [])
    reasons = {
        "hang": f"no response in time; {MANY_RECORDS}",
        500: "the cluster responded with status 500",
        403: "the cluster rejected the connection's token (403)",
    }
    assert answer["jobs_fault"] == reasons[kind]
    dashboard.faults.clear()
    until(lambda: look("fake").jobs.current)


def test_a_cluster_that_does_not_tell_its_usage_is_healthy(
    dashboard: FakeDashboard, look: Callable[..., ClusterWatch]
) -> None:
    dashboard.fail(500, times=1000, path="/api/cluster_status")
    until(lambda: look("fake").serve.known_at and look("fake").usage.error)
    answer = cluster_answer(look("fake"), may_stop=False, dags=())
    assert (answer["health"], answer["demands"]) == ("healthy", None)
    assert answer["usage_fault"] == "the cluster responded with status 500"
    assert {each["used"] for each in answer["resources"]} == {None}


def test_after_a_failure_the_version_is_asked_for_as_a_sign_of_life(
    dashboard: FakeDashboard, look: Callable[..., ClusterWatch]
) -> None:
    """Usage or jobs that cannot be had say nothing about the health of the cluster, which is soon known by this."""
    until(lambda: look("fake").serve.known_at)
    dashboard.requests.clear()
    dashboard.fail("hang", times=1000)
    until(lambda: look("fake") and len(dashboard.requests) >= 3)
    assert paths(dashboard)[1:3] == ["/api/version", "/api/version"]
    assert reason(look("fake")) == "no response in time"


def test_a_cluster_whose_head_is_dead_is_unhealthy(dashboard: FakeDashboard, look: Callable[..., ClusterWatch]) -> None:
    dashboard.nodes[0]["state"] = "DEAD"
    until(lambda: look("fake").nodes.known_at)
    assert reason(look("fake")) == "its head node is dead"


def test_a_job_list_that_is_slow_is_asked_for_less_often(
    dashboard: FakeDashboard, look: Callable[..., ClusterWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = RayClient.__aenter__
    quick = SharedAnswer.overdue
    monkeypatch.setattr(SharedAnswer, "overdue", lambda answer, now: quick(answer, now) * 30)

    async def slow_jobs(self: RayClient) -> RayClient:
        opened = await original(self)
        listing = opened.jobs.active

        async def active() -> Any:
            await asyncio.sleep(0.3)
            return await listing()

        monkeypatch.setattr(opened.jobs, "active", active)
        return opened

    monkeypatch.setattr(RayClient, "__aenter__", slow_jobs)
    until(lambda: look("fake").serve.known_at)
    watch = look("fake")
    assert watch.jobs.took >= 0.3
    now = time.monotonic()
    assert watch.jobs.overdue(now) <= 30 * (now - watch.jobs.asked_at) / 6.0


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (None, "the cluster requires a token, and the connection has none (401)"),
        ("wrong", "the cluster rejected the connection's token (403)"),
    ],
)
def test_credentials_that_are_refused(
    token: str | None, said: str, look: Callable[..., ClusterWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeDashboard(token="right") as fake:
        connect(monkeypatch, "locked", fake, password=token)
        until(lambda: look("locked").fault)
        assert reason(look("locked")) == said


def test_a_connection_that_is_mended_is_read_again(
    dashboard: FakeDashboard, look: Callable[..., ClusterWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    until(lambda: look("broken").fault)
    assert reason(look("broken")) == "the API server cannot find the connection"
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", '{"conn_type": "ray", "host": "ray://head:10001"}')
    until(lambda: "not a ray:// or GCS address" in str(reason(look("broken"))))
    connect(monkeypatch, "broken", dashboard)
    until(lambda: look("broken").answered_at)
    until(lambda: look("broken").fault is None)


def test_a_connection_that_changes_is_noticed_in_time(
    dashboard: FakeDashboard, fake: FakeDashboard, look: Callable[..., ClusterWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "PAGE_CONNECTION_SECONDS", 0.5)
    until(lambda: look("fake").serve.known_at)
    connect(monkeypatch, "fake", fake)
    until(lambda: look("fake") and fake.requests)
    dashboard.requests.clear()
    look_for(1.0, lambda: look("fake"))
    assert not dashboard.requests


def test_what_the_server_says_is_not_repeated(
    look: Callable[..., ClusterWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeDashboard(token="s3cret-token") as fake:
        connect(monkeypatch, "echo", fake, password="s3cret-token")
        for status in (500, 418, 302):
            fake.fail(
                status, times=1, text="you sent Authorization: Bearer s3cret-token", headers={"Location": "s3cret"}
            )
        seen: set[str] = set()

        def reasons() -> bool:
            watch = look("echo")
            seen.update(fault_in_words(each.error) for each in watch._regular() if each.error)
            return len(seen) == 3

        until(reasons, 10.0)
        assert "s3cret" not in str(seen)
        assert "the cluster redirected to another address" in seen


def test_a_job_that_has_ended_is_asked_for_by_itself_and_once(
    dashboard: FakeDashboard, look: Callable[..., ClusterWatch]
) -> None:
    submit(dashboard, "done", status="FAILED", exit_code=3)
    until(lambda: "done" in look("fake", "done").single and look("fake").single["done"].value)
    job = look("fake").single["done"].value
    assert job is not None
    assert (job.status, job.driver_exit_code) == ("FAILED", 3)
    look_for(1.0, lambda: look("fake", "done"))
    assert len(dashboard.asked("GET", "/api/jobs/done")) == 1


def test_a_job_that_the_cluster_does_not_know(dashboard: FakeDashboard, look: Callable[..., ClusterWatch]) -> None:
    until(lambda: "gone" in look("fake", "gone").single and look("fake").single["gone"].known_at)
    assert look("fake").single["gone"].value is None
    assert look("fake").fault is None


def test_single_jobs_are_forgotten_in_the_end(
    dashboard: FakeDashboard, look: Callable[..., ClusterWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "PAGE_JOBS_KEPT", 2)

    def is_known(name: str) -> bool:
        return name in look("fake", name).single

    for name in ("a", "b", "c"):
        until(partial(is_known, name))
    assert list(look("fake").single) == ["b", "c"]


def test_a_job_that_is_stopped_is_gone_with_the_next_look(
    dashboard: FakeDashboard, watcher: Watcher, look: Callable[..., ClusterWatch]
) -> None:
    submit(dashboard, "busy", ends_after=None)
    until(lambda: look("fake").serve.known_at)
    assert [job.submission_id for job in look("fake").jobs.value or ()] == ["busy"]
    assert asyncio.run(watcher.stop_job("fake", "busy")) is True
    until(lambda: not look("fake").jobs.value, 2 * REFRESH)
    assert asyncio.run(watcher.stop_job("fake", "busy")) is False


def test_a_stop_waits_no_longer_than_a_look(dashboard: FakeDashboard, watcher: Watcher) -> None:
    dashboard.fail("hang", times=1000)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(watcher.stop_job("fake", "busy"))
    assert time.monotonic() - started < 4 * REQUEST


def test_a_watcher_that_never_looked_can_be_closed() -> None:
    Watcher().close()


def test_fifty_clusters_of_which_five_hang(
    dashboard: FakeDashboard, fake: FakeDashboard, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.fail("hang", times=1000)
    for number in range(50):
        connect(monkeypatch, f"c{number}", fake if number < 5 else dashboard)
    wanted = {f"c{number}": () for number in range(50)}
    until(lambda: all(watch.answered_at for watch in watcher.look(wanted)[5:]))
    until(lambda: all(watch.fault for watch in watcher.look(wanted)[:5]))
    assert not any(watch.fault for watch in watcher.look(wanted)[5:])


def test_connections_whose_look_up_hangs_do_not_make_others_unhealthy(
    dashboard: FakeDashboard, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, real = Event(), RayHook.get_config

    def get_config(hook: RayHook) -> ClusterConfig:
        if hook.conn_id.startswith("hang"):
            released.wait(60)
        return real(hook)

    monkeypatch.setattr(RayHook, "get_config", get_config)
    monkeypatch.setattr(pacing, "PAGE_LOOKUP_SECONDS", 0.02)
    try:
        watches = watcher.look(dict.fromkeys([*(f"hang{number}" for number in range(30)), "fake"], ()))
        health = [cluster_answer(watches[-1], may_stop=False, dags=())["health"]]
        while health[-1] == "unknown":
            time.sleep(0.01)
            health.append(cluster_answer(watches[-1], may_stop=False, dags=())["health"])
        assert health[-1] == "healthy"
    finally:
        released.set()


def test_a_list_of_jobs_that_takes_long_is_told_as_such(
    dashboard: FakeDashboard, look: Callable[..., ClusterWatch], watcher: Watcher
) -> None:
    dashboard.fail("hang", path="/api/v0/jobs", times=9)
    watch = look("fake")
    until(lambda: watch.jobs.error is not None and watch.version.known_at is not None and watch.nodes.known_at)
    answer = cluster_answer(watch, may_stop=False, dags=())
    assert (answer["health"], answer["running"]) == ("healthy", None)
    assert "airflow ray jobs clean" in answer["jobs_fault"]
