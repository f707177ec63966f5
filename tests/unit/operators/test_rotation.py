"""Credentials that are rotated while a job runs, wherever something waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from aiohttp import web
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_ray.client import errors, pacing
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.jobs.waiting import wait_for_job
from airflow_provider_ray.client.sharing.shared_client import shared_client
from airflow_provider_ray.fan_out.plan import give_up_job
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.jobs.retry_policy import RayRetryPolicy
from airflow_provider_ray.operators.job import RaySubmitJobOperator
from airflow_provider_ray.operators.serve import RayServeOperator
from airflow_provider_ray.sensors.cluster import RayClusterSensor
from airflow_provider_ray.sensors.job import RayJobSensor
from airflow_provider_ray.triggers.job import RayJobTrigger
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.client.api import certificates
from tests.unit.client.api.certificates import Certificates
from tests.unit.conftest import Attempts, TaskLog, connect
from tests.unit.deferral import first_event, run_deferred

MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["running", "deferred"])
NEVER_AGAIN = RayRetryPolicy()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(pacing, "LAST_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(pacing, "LOOK_UP_SECONDS", 0.05)
    monkeypatch.setattr(pacing, "AUTH_BUDGET_SECONDS", 20.0)
    monkeypatch.setattr(pacing, "EARLIEST_EVENT_SECONDS", 0.1)


@pytest.fixture
def secured(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDashboard]:
    """A cluster with a token, whose jobs run for two seconds."""
    with FakeDashboard(token="first-token") as fake:
        connect(monkeypatch, "ray_default", fake, password="first-token")
        fake.default_outcome = Outcome(ends_after=2.0)
        yield fake


def observer(name: str, conn_id: str = "ray_default") -> RayJobTrigger:
    return RayJobTrigger(role="observer", conn_id=conn_id, submission_id=name, poll_interval=0.2)


@contextmanager
def once_watched(fake: FakeDashboard, happens: Callable[[], None], path: str = "/api/jobs/") -> Iterator[None]:
    """Do something a moment after somebody has asked for this path."""

    def wait() -> None:
        while not fake.asked("GET", path):
            sleep(0.02)
        # What was asked at the same time gets its answers.
        sleep(0.3)
        happens()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def rotation(fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch, after: float = 0.0) -> Callable[[], None]:
    """The token changes in the cluster, and so many seconds later in the connection."""

    def rotate() -> None:
        fake.token = "second-token"
        sleep(after)
        connect(monkeypatch, "ray_default", fake, password="second-token")

    return rotate


def submit(**given: Any) -> RaySubmitJobOperator:
    arguments = {"poll_interval": 0.1, "retries": 5, "retry_policy": NEVER_AGAIN, "fetch_logs": False, **given}
    return RaySubmitJobOperator(task_id="submit", entrypoint="true", **arguments)


def run(task: Any, context: Any) -> Any:
    return run_deferred(task, context) if task.deferrable else task.execute(context)


def statuses(fake: FakeDashboard) -> list[str]:
    return [job.status for job in fake.jobs.values()]


@MODES
@pytest.mark.parametrize("after", [0.0, 1.0], ids=["at the same moment", "the connection later"])
def test_a_job_is_watched_on_with_the_new_token(
    secured: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool, after: float
) -> None:
    with once_watched(secured, rotation(secured, monkeypatch, after)):
        run(submit(deferrable=deferrable), context)
    assert statuses(secured) == ["SUCCEEDED"]
    assert not secured.asked("POST", "/api/jobs/my_dag") + [each for each in secured.requests if "stop" in each.path]


@MODES
def test_a_token_that_changes_before_the_submission_is_looked_up(
    secured: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    with once_watched(secured, rotation(secured, monkeypatch), path="/api/version"):
        run(submit(deferrable=deferrable), context)
    assert statuses(secured) == ["SUCCEEDED"]


@MODES
@pytest.mark.parametrize("status", [401, 403])
def test_rejected_credentials_are_sat_out_whatever_the_policy(
    secured: FakeDashboard, context: Any, deferrable: bool, status: int
) -> None:
    secured.fail(status, method="GET", path="/api/jobs/", times=5)
    run(submit(deferrable=deferrable), context)
    assert statuses(secured) == ["SUCCEEDED"]


@MODES
@pytest.mark.parametrize(("number", "said"), [(1, "the next attempt will look for it"), (2, "is no longer watched")])
def test_a_job_outlives_a_rejection_that_lasts_and_the_log_says_so(
    secured: FakeDashboard,
    attempts: Attempts,
    task_log: TaskLog,
    monkeypatch: pytest.MonkeyPatch,
    deferrable: bool,
    number: int,
    said: str,
) -> None:
    monkeypatch.setattr(pacing, "AUTH_BUDGET_SECONDS", 0.5)
    secured.default_outcome = Outcome(ends_after=None)
    secured.fail(403, method="GET", path="/api/jobs/", times=10_000)
    with pytest.raises(errors.RayAuthLapsed, match=r"403.*looked up again"):
        run(submit(deferrable=deferrable), attempts.context(try_number=number, max_tries=1))
    assert statuses(secured) == ["RUNNING"]
    assert not [each for each in secured.requests if each.path.endswith("/stop")]
    (line,) = [line for line in task_log.lines if said in line]
    if number == 2:
        (name,) = secured.jobs
        assert f"RayJobSensor(conn_id='ray_default', submission_id='{name}')" in line
        return
    secured.faults.clear()
    secured.jobs[next(iter(secured.jobs))].outcome.ends_after = 0.0
    run(submit(), attempts.context(try_number=2, max_tries=1))
    assert statuses(secured) == ["SUCCEEDED"]


def test_the_policy_retries_credentials_that_were_accepted_before() -> None:
    lapsed = errors.RayAuthLapsed("GET http://a", "403", 403)
    for policy in (RayRetryPolicy(), RayRetryPolicy(cluster_faults=False)):
        assert policy.evaluate(lapsed, 1, 3).action.name == "RETRY"
        again = errors.RayError.from_json(lapsed.to_json())
        assert policy.evaluate(again, 1, 3).action.name == "RETRY"


def test_a_token_that_never_worked_fails_at_once(
    secured: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, "ray_default", secured, password="mistyped")
    with pytest.raises(errors.RayAuthError, match="403") as caught:
        submit().execute(context)
    assert not isinstance(caught.value, errors.RayAuthLapsed)
    assert Counter(each.path for each in secured.requests).most_common(1)[0][1] == 1


@pytest.mark.parametrize("role", ["owner", "submitter", "observer"])
def test_every_role_of_the_trigger_sits_it_out(secured: FakeDashboard, role: Any) -> None:
    RayHook().submit_job("true", submission_id="s", metadata={"airflow_nonce": "n"})
    secured.fail(401, times=3)
    owns = {"nonce": "n", "left_behind": (), "cancel_on_kill": True}
    trigger = RayJobTrigger(
        role=role,
        conn_id="ray_default",
        submission_id="s",
        ownership=owns if role != "observer" else None,  # type: ignore[arg-type]
    )
    event = asyncio.run(first_event(trigger))
    assert (event["event"], event["fault"]) == ("submitted" if role == "submitter" else "ended", None)


@MODES
def test_a_sensor_sits_it_out_once_it_has_seen_the_job(
    secured: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    RayHook().submit_job("true", submission_id="s")
    secured.requests.clear()
    sensor = RayJobSensor(task_id="wait", submission_id="s", deferrable=deferrable, poke_interval=0.2)
    with once_watched(secured, rotation(secured, monkeypatch, 0.5)):
        result = run(sensor, context)
    assert result["status"] == "SUCCEEDED"


@MODES
def test_a_sensor_for_clusters_sits_it_out_within_the_bound(
    secured: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    RayHook().submit_job("true", submission_id="s")

    def sensor() -> RayClusterSensor:
        return RayClusterSensor(task_id="wait", max_running_jobs=0, deferrable=deferrable, poke_interval=0.2)

    with once_watched(secured, rotation(secured, monkeypatch, 0.5), path="/api/v0/jobs"):
        assert "ray_default" in run(sensor(), context)
    monkeypatch.setattr(pacing, "AUTH_BUDGET_SECONDS", 0.5)
    secured.default_outcome = Outcome(ends_after=None)
    RayHook().submit_job("true", submission_id="t")
    secured.requests.clear()

    def never_again() -> None:
        sleep(0.5)
        secured.token = "third-token"

    with once_watched(secured, never_again, path="/api/v0/jobs"), pytest.raises(errors.RayAuthError, match="403"):
        run(sensor(), context)


def test_sensors_in_reschedule_mode_know_that_they_have_checked_before(secured: FakeDashboard, context: Any) -> None:
    RayHook().submit_job("true", submission_id="s")
    context["task_reschedule_count"] = 1
    secured.fail(403, times=2)
    assert not RayClusterSensor(task_id="a", max_running_jobs=0, mode="reschedule").poke(context).is_done
    secured.fail(403, times=2)
    assert not RayJobSensor(task_id="b", submission_id="s", mode="reschedule").poke(context).is_done
    assert not secured.faults[-1].times


@MODES
def test_a_call_of_an_application_sits_it_out(
    secured: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    application = secured.deploy("app", "/app", {"an": "answer"}, status="DEPLOYING")

    def rotate() -> None:
        sleep(0.5)
        rotation(secured, monkeypatch, 0.5)()
        application.status = "RUNNING"

    task = RayServeOperator(task_id="call", application="app", deferrable=deferrable, poll_interval=0.1, timeout=30)
    with once_watched(secured, rotate, path="/api/serve"):
        assert run(task, context) == {"an": "answer"}


def test_a_hook_that_lives_long_uses_the_new_token_at_once(
    secured: FakeDashboard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hook = RayHook()
    hook.submit_job("true", submission_id="s")
    rotation(secured, monkeypatch)()
    assert hook.get_job("s").submission_id == "s"
    (tmp_path / "main.py").write_text("print()")
    secured.token = "third-token"
    connect(monkeypatch, "ray_default", secured, password="third-token")
    hook.submit_job("true", runtime_env={"working_dir": str(tmp_path)})
    assert len(secured.packages) == 1


def test_a_package_is_sent_again_with_the_new_token(
    secured: FakeDashboard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text("print()")
    hook = RayHook()
    hook.get_config()
    connect(monkeypatch, "ray_default", secured, password="first-token", extra={"auth_headers": {"X-New": "1"}})
    secured.fail(401, method="PUT", path="/api/packages")
    hook.submit_job("true", runtime_env={"working_dir": str(tmp_path)})
    assert len(secured.packages) == 1


def test_work_is_not_taken_over_from_a_cluster_that_only_rejects_credentials(
    secured: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "LOST_STOP_SECONDS", 0.3)
    secured.default_outcome = Outcome(ends_after=None)
    RayHook().submit_job("true", submission_id="s")
    secured.fail(403, times=1000)
    with pytest.raises(errors.RayAuthError):
        give_up_job("ray_default", "s")


def test_a_connection_that_cannot_be_used_any_more_is_no_reason_to_be_silent(
    secured: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch, task_log: TaskLog
) -> None:
    secured.default_outcome = Outcome(ends_after=0.5)
    task = submit(deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    event = asyncio.run(first_event(deferred.value.trigger))
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", '{"conn_type": "ray"}')
    with pytest.raises(errors.RayConfigError, match="host"):
        task.execute_complete(context, event)
    assert [line for line in task_log.lines if "is no longer watched: its connection cannot be used" in line]


def test_a_call_is_repeated_with_serves_new_token(
    secured: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    secured.deploy("app", "/app", {"an": "answer"})
    extra = {"serve_token": "serve-1"}
    connect(monkeypatch, "ray_default", secured, password="first-token", extra=extra)
    secured.fail(401, path="/app")
    hook = RayHook()
    hook.get_config()
    connect(monkeypatch, "ray_default", secured, password="first-token", extra={"serve_token": "serve-2"})
    assert hook.call_application("app", method="POST", timeout=5) == {"an": "answer"}
    assert secured.requests[-1].headers["Authorization"] == "Bearer serve-2"


def test_serves_token_may_change_before_that_in_the_connection(secured: FakeDashboard, context: Any) -> None:
    application = secured.deploy("app", "/app", {"an": "answer"}, routed=False)

    def change() -> None:
        secured.fail(401, path="/-/routes", times=3)
        application.routed = True

    task = RayServeOperator(task_id="call", application="app", poll_interval=0.1, timeout=30)
    with once_watched(secured, change, path="/-/routes"):
        assert task.execute(context) == {"an": "answer"}
    assert not secured.faults[-1].times


def test_a_retry_that_may_use_another_cluster_waits_for_the_one_that_runs_the_job(
    clusters: dict[str, FakeDashboard], attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "AUTH_BUDGET_SECONDS", 20.0)
    clusters["a"].default_outcome = Outcome(ends_after=2.0)
    task = {"conn_id": ["a", "b"]}
    submit(**task, wait_for_completion=False).execute(attempts.context(max_tries=5))
    clusters["a"].fail(403, times=6)
    assert submit(**task).execute(attempts.context(try_number=2, max_tries=5))["conn_id"] == "a"
    assert not clusters["b"].jobs


def test_a_kill_in_the_triggerer_stops_the_job_with_the_new_token(
    secured: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    secured.default_outcome = Outcome(ends_after=None)
    RayHook().submit_job("true", submission_id="s", metadata={"airflow_nonce": "n"})
    owns: Any = {"nonce": "n", "left_behind": (), "cancel_on_kill": True}
    trigger = RayJobTrigger(role="owner", conn_id="ray_default", submission_id="s", ownership=owns)

    async def kill() -> None:
        watching = asyncio.create_task(first_event(trigger))
        await asyncio.sleep(1.0)
        rotation(secured, monkeypatch)()
        watching.cancel()
        await trigger.on_kill()

    asyncio.run(kill())
    assert statuses(secured) == ["STOPPED"]


def kill_after_rotation(task: Any, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch, context: Any) -> list[str]:
    """Kill a task some time after its wait got a new token; returns the states of the jobs right after the kill."""
    killed: list[str] = []

    def kill() -> None:
        rotation(fake, monkeypatch)()
        while fake.requests[-1].headers.get("Authorization") != "Bearer second-token":
            sleep(0.02)
        sleep(0.3)
        task.on_kill()
        killed.extend(statuses(fake))
        for job in fake.jobs.values():
            job.outcome = Outcome()

    with once_watched(fake, kill), pytest.raises(errors.RayJobError):
        task.execute(context)
    return killed


@pytest.mark.parametrize("wiped", [False, True], ids=["remembered", "found"])
def test_a_kill_stops_a_resumed_job_with_the_token_that_its_wait_has_looked_up(
    secured: FakeDashboard, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, wiped: bool
) -> None:
    secured.default_outcome = Outcome(ends_after=None)
    submit(wait_for_completion=False).execute(attempts.context(max_tries=5))
    if wiped:
        attempts.store.clear()
    secured.requests.clear()
    again = attempts.context(try_number=2, max_tries=5)
    assert kill_after_rotation(submit(), secured, monkeypatch, again) == ["STOPPED"]


def test_a_kill_stops_jobs_left_behind_with_that_token_too(
    secured: FakeDashboard, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "LOST_STOP_SECONDS", 0.3)
    secured.default_outcome = Outcome(ends_after=None)
    submit(wait_for_completion=False).execute(attempts.context(max_tries=5))
    (lost,) = secured.jobs
    secured.jobs[lost].outcome = Outcome(ends_after=None, stop_after=None)
    attempts.store["ray_job"]["lost"] = True
    task = submit()
    stops: list[str] = []

    def on_kill() -> None:
        secured.requests.clear()
        secured.jobs[lost].outcome = Outcome(ends_after=None)
        RaySubmitJobOperator.on_kill(task)
        stops.extend(each.path for each in secured.requests if each.path.endswith("/stop"))

    task.on_kill = on_kill  # type: ignore[method-assign]
    killed = kill_after_rotation(task, secured, monkeypatch, attempts.context(try_number=2, max_tries=5))
    assert killed == ["STOPPED"] * 2
    assert f"/api/jobs/{lost}/stop" in stops


def test_a_new_trigger_and_an_old_one_share_the_renewed_client(
    secured: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("s", "t"):
        RayHook().submit_job("true", submission_id=name)

    async def both() -> list[Any]:
        old = asyncio.create_task(first_event(observer("s")))
        await asyncio.sleep(0.5)
        rotation(secured, monkeypatch)()
        return [await first_event(observer("t")), await old]

    assert [event["job"]["status"] for event in asyncio.run(both())] == ["SUCCEEDED"] * 2


def test_of_two_connections_with_equal_tokens_each_is_looked_up(
    secured: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, "other", secured, password="first-token")
    for name in ("s", "t"):
        RayHook().submit_job("true", submission_id=name)

    async def both() -> Any:
        stale = asyncio.create_task(first_event(observer("s", "other")))
        await asyncio.sleep(0.3)
        watching = asyncio.create_task(first_event(observer("t")))
        await asyncio.sleep(0.5)
        rotation(secured, monkeypatch)()
        event = await watching
        connect(monkeypatch, "other", secured, password="second-token")
        return event, await stale

    assert [event["job"]["status"] for event in asyncio.run(both())] == ["SUCCEEDED"] * 2


@pytest.mark.parametrize("asks", ["the client of one", "a shared client"])
def test_a_look_up_that_hangs_holds_up_no_wait(
    secured: FakeDashboard, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    monkeypatch.setattr(pacing, "LOOK_UP_LIMIT_SECONDS", 0.3)
    RayHook().submit_job("true", submission_id="s")
    config = RayHook().get_config()

    async def never() -> Any:
        await asyncio.sleep(3600)

    made = shared_client if asks == "a shared client" else RayClient

    async def wait() -> Any:
        async with made(config, never, accepted=True) as client, asyncio.timeout(15):
            waiting = asyncio.create_task(wait_for_job(client, "s", poll_interval=0.2))
            await asyncio.sleep(0.5)
            secured.fail(401, path="/api/jobs/", times=1)
            return await waiting

    assert asyncio.run(wait()).status == "SUCCEEDED"


def refusing(fake: FakeDashboard) -> list[str]:
    """Deploy an application that refuses each call; returns what it was sent."""
    got: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        got.append(await request.text())
        return web.Response(status=403, text="stored, and the quota is exceeded now")

    fake.deploy("app", "/app", answer)
    return got


@pytest.mark.parametrize("extra", [{"max_jobs": 5}, {"auth_headers": {"X-New": "1"}}, {"serve_url": "moved"}])
def test_a_refusal_by_an_application_is_not_about_the_rest_of_the_connection(
    secured: FakeDashboard, monkeypatch: pytest.MonkeyPatch, extra: Any
) -> None:
    got, hook = refusing(secured), RayHook()
    hook.get_config()
    if "serve_url" in extra:
        extra = {"serve_url": secured.serve_url.replace("127.0.0.1", "localhost")}
    connect(monkeypatch, "ray_default", secured, password="first-token", extra=extra)
    with pytest.raises(errors.RayServeBadAnswer, match="quota"):
        hook.call_application("app", method="POST", data={"order": 1}, timeout=5)
    assert len(got) == 1


def test_a_refusal_by_an_application_is_repeated_once(secured: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    got, hook = refusing(secured), RayHook()
    connect(monkeypatch, "ray_default", secured, password="first-token", extra={"serve_token": "serve-1"})
    hook.get_config()
    connect(monkeypatch, "ray_default", secured, password="first-token", extra={"serve_token": "serve-2"})
    with pytest.raises(errors.RayServeBadAnswer, match="quota"):
        hook.call_application("app", method="POST", data={"order": 1}, timeout=5)
    assert len(got) == 2


@pytest.mark.parametrize("path", ["/-/routes", "/app"])
def test_serves_new_token_goes_to_serves_new_address_only(
    secured: FakeDashboard, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    with FakeDashboard() as new:
        for fake in (secured, new):
            fake.deploy("app", "/app", {"an": "answer"})
        connect(monkeypatch, "ray_default", secured, password="first-token", extra={"serve_token": "serve-1"})
        hook = RayHook()
        hook.get_config()
        secured.fail(401, path=path, times=100)
        extra = {"serve_token": "serve-2", "serve_url": new.serve_url}
        connect(monkeypatch, "ray_default", secured, password="first-token", extra=extra)
        assert hook.call_application("app", method="POST", timeout=5) == {"an": "answer"}
        assert {each.headers.get("Authorization") for each in secured.requests if each.server == "serve"} == {
            "Bearer serve-1"
        }
        assert new.requests[-1].headers["Authorization"] == "Bearer serve-2"


def test_a_token_that_the_cluster_does_not_take_yet_replaces_none_that_it_takes(
    secured: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection has the new token hours before the cluster, which refuses some requests for other reasons."""
    monkeypatch.setattr(pacing, "AUTH_BUDGET_SECONDS", 1.0)
    refusing(secured)
    owns: Any = {"nonce": "n", "left_behind": (), "cancel_on_kill": True}
    trigger = RayJobTrigger(role="owner", conn_id="ray_default", submission_id="s", ownership=owns, poll_interval=0.1)
    secured.default_outcome = Outcome(ends_after=None)
    RayHook().submit_job("true", submission_id="s", metadata={"airflow_nonce": "n"})

    async def watch() -> None:
        watching = asyncio.create_task(first_event(trigger))
        await asyncio.sleep(0.5)
        hook = RayHook()
        config = hook.get_config()
        connect(monkeypatch, "ray_default", secured, password="second-token")
        async with shared_client(config, hook.aget_config, conn_id="ray_default") as client:
            with pytest.raises(errors.RayServeBadAnswer):
                await client.serve.call(f"{secured.serve_url}/app", method="POST")
            secured.fail(403, path="/api/serve", times=3)
            with pytest.raises(errors.RayAuthLapsed, match="what worked before is used again"):
                await client.serve.details()
            # The client of those who come now and have the new token.
            async with shared_client(hook_config(), conn_id="ray_default") as same:
                assert same is client
        await asyncio.sleep(2.5)
        assert not watching.done()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await trigger.on_kill()

    def hook_config() -> Any:
        return RayHook().get_config()

    asyncio.run(watch())
    assert statuses(secured) == ["STOPPED"]


def test_a_hook_goes_back_to_the_token_that_it_began_with(
    secured: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = RayHook()
    hook.submit_job("true", submission_id="s")
    connect(monkeypatch, "ray_default", secured, password="second-token")
    secured.fail(403, path="/api/jobs/s")
    with pytest.raises(errors.RayAuthLapsed, match="what worked before is used again"):
        hook.get_job("s")
    assert hook.get_job("s").submission_id == "s"


def test_a_watch_does_not_follow_its_connection_to_another_cluster(
    secured: FakeDashboard, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "AUTH_BUDGET_SECONDS", 1.0)
    secured.default_outcome = Outcome(ends_after=None)
    with FakeDashboard(token="second-token") as other:

        def move() -> None:
            secured.token = "unknown"
            connect(monkeypatch, "ray_default", other, password="second-token")

        with once_watched(secured, move), pytest.raises(errors.RayAuthLapsed, match=f"another cluster, {other.url}"):
            submit().execute(attempts.context(max_tries=5))
        assert not other.requests


@MODES
@pytest.mark.parametrize("mutual", [False, True], ids=["CA", "client certificate"])
def test_files_that_are_renewed_in_place_are_read_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, context: Any, deferrable: bool, mutual: bool
) -> None:
    old, new = (certificates.make(_folder(tmp_path / name)) for name in ("old", "new"))
    used = Certificates(_folder(tmp_path / "used"))
    _install(old, used)
    tls = old.server_context(demand_client_certificate=mutual)
    with FakeDashboard(tls=tls) as fake:
        extra = {"ca_cert": used.ca}
        if mutual:
            extra |= {"client_cert": used.certificate("client"), "client_key": used.key("client")}
        connect(monkeypatch, "ray_default", fake, extra=extra)
        fake.default_outcome = Outcome(ends_after=3.0)

        def renew() -> None:
            # Connections that exist go on as they are, until they are closed.
            renewed = new.server_context(demand_client_certificate=mutual)
            tls.sni_callback = lambda connection, *_: setattr(connection, "context", renewed)
            fake.fail("close", times=3)
            sleep(0.5)
            _install(new, used)

        with once_watched(fake, renew):
            run(submit(deferrable=deferrable), context)
        assert statuses(fake) == ["SUCCEEDED"]
        # What starts now does so with the new files.
        run(RayJobSensor(task_id="wait", submission_id=next(iter(fake.jobs)), poke_interval=0.1), context)


def test_a_file_that_is_missing_while_it_is_replaced_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem = certificates.make(tmp_path)
    with FakeDashboard(tls=pem.server_context()) as fake:
        connect(monkeypatch, "ray_default", fake, extra={"ca_cert": pem.ca})
        RayHook().submit_job("true", submission_id="s")
        away = Path(pem.ca).rename(tmp_path / "away")
        threading.Timer(0.5, lambda: away.rename(pem.ca)).start()
        event = asyncio.run(
            first_event(RayJobTrigger(role="observer", conn_id="ray_default", submission_id="s", poll_interval=0.1))
        )
    assert (event["event"], event["fault"]) == ("ended", None)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _install(what: Certificates, where: Certificates) -> None:
    for name in what.folder.iterdir():
        (where.folder / name.name).write_bytes(name.read_bytes())
