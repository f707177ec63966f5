"""What the triggerer asks of triggers: to travel, to survive, and to kill only what is meant."""

from __future__ import annotations

import asyncio
import contextlib
from time import time
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.jobs.submission import NONCE_KEY
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.jobs.encryption import encrypt
from airflow_provider_ray.triggers.cluster import RayClusterTrigger
from airflow_provider_ray.triggers.job import Ownership, RayJobTrigger, Submission
from airflow_provider_ray.triggers.serve import RayServeTrigger
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.airflow_log import AirflowLog
from tests.unit.conftest import TaskLog
from tests.unit.deferral import first_event, rebuilt

pytestmark = pytest.mark.anyio

MARKED = {NONCE_KEY: "n1"}
TRIGGERS = [
    RayJobTrigger(
        conn_id="c",
        submission_id="s",
        ownership={
            "nonce": "n1",
            "left_behind": [{"conn_id": "d", "submission_id": "t", "nonce": "n2"}],
            "cancel_on_kill": False,
        },
        submission={
            "spec": encrypt({"entrypoint": "true", "submission_id": "s"}),
            "queued_at": 1.0,
            "room_end_time": 1.5,
        },
        role="submitter",
        metadata={"a": "b"},
        poll_interval=1.5,
        end_time=2.5,
        startup_end_time=2.0,
        fetch_logs=True,
    ),
    RayClusterTrigger(
        conn_ids=["a", "b"],
        room={"free_resources": {"CPU": 1}, "max_pending_jobs": 2, "max_running_jobs": None},
        required=1,
        poll_interval=1.5,
        end_time=2.5,
    ),
    RayServeTrigger(conn_id="c", application="a", path="/p", submission_id="s", poll_interval=1.5, end_time=2.5),
]


def owns(*left_behind: dict[str, str], cancel_on_kill: bool = True) -> Ownership:
    """A job with the nonce n1, and those that earlier attempts left behind."""
    return {"nonce": "n1", "left_behind": left_behind, "cancel_on_kill": cancel_on_kill}


def submits(submission_id: str) -> Submission:
    """The submission of a job with the nonce n1."""
    spec = {"entrypoint": "true", "submission_id": submission_id, "metadata": MARKED}
    return {"spec": encrypt(spec), "queued_at": time(), "room_end_time": None}


def task_instance() -> Any:
    """What a trigger uses of its task instance."""
    return SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=2)


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: type(trigger).__name__)
def test_every_argument_survives_the_database(trigger: Any) -> None:
    copy = rebuilt(trigger)
    assert type(copy) is type(trigger)
    assert vars(copy) == vars(trigger)


@pytest.mark.parametrize(
    ("status", "role", "happened"),
    [("SUCCEEDED", "owner", "ended"), ("FAILED", "observer", "ended"), (None, "owner", "timed_out")],
)
async def test_an_event_says_what_happened(
    dashboard: FakeDashboard, status: str | None, role: Any, happened: str
) -> None:
    dashboard.default_outcome = Outcome(status=status) if status else Outcome(ends_after=None, stop_after=0.1)
    await asyncio.to_thread(RayHook().submit_job, "true", submission_id="s", metadata=MARKED)
    trigger = RayJobTrigger(
        role=role,
        conn_id="ray_default",
        submission_id="s",
        ownership=owns() if role == "owner" else None,
        poll_interval=0.1,
        end_time=time() + 0.5,
    )
    assert (await first_event(trigger))["event"] == happened


async def test_a_kill_while_the_submission_is_under_way_says_that_the_job_may_still_arrive(
    dashboard: FakeDashboard, task_log: TaskLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "TRIGGER_KILL_SECONDS", 2.0)
    trigger = RayJobTrigger(
        role="owner", conn_id="ray_default", submission_id="s", ownership=owns(), submission=submits("s")
    )
    trigger.task_instance = None
    dashboard.fail("hang", method="POST", path="/api/jobs/")
    waiting = asyncio.create_task(first_event(trigger))
    while not dashboard.asked("POST", "/api/jobs/"):
        await asyncio.sleep(0.05)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await trigger.on_kill()
    assert task_log.lines[-1].startswith("Ray job s is not on ray_default, but its submission may still arrive")


async def test_a_submitter_fires_when_the_job_is_submitted(dashboard: FakeDashboard) -> None:
    dashboard.default_outcome = Outcome(ends_after=None)
    trigger = RayJobTrigger(
        role="submitter",
        conn_id="ray_default",
        submission_id="s",
        ownership=owns(),
        submission=submits("s"),
    )
    event = await first_event(trigger)
    assert (event["event"], event["job"], event["fault"]) == ("submitted", None, None)
    assert dashboard.jobs["s"].status == "RUNNING"


@pytest.mark.parametrize("kind", [RayJobTrigger, RayClusterTrigger, RayServeTrigger])
async def test_whatever_goes_wrong_is_an_event(monkeypatch: pytest.MonkeyPatch, kind: type[Any]) -> None:
    async def breaks(_: RayHook) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(RayHook, "aget_config", breaks)
    ends = {"poll_interval": 0.1, "end_time": time() + 60}
    arguments: dict[type[Any], dict[str, Any]] = {
        RayJobTrigger: {"role": "observer", "conn_id": "ray_default", "submission_id": "s"},
        RayClusterTrigger: {"conn_ids": ["ray_default"], "room": {}, "required": 1},
        RayServeTrigger: {"conn_id": "ray_default", "application": "app", "path": "/", "submission_id": None},
    }
    event = await first_event(kind(**arguments[kind], **ends))
    assert event["event"] == "fault"
    assert event["fault"] == ["RayTriggerError", "ZeroDivisionError: a bug"]


async def test_a_hundred_triggers_share_their_requests_about_serve(dashboard: FakeDashboard) -> None:
    app = dashboard.deploy("app", "/app", {}, routed=False)
    triggers = [
        RayServeTrigger(
            conn_id="ray_default",
            application="app",
            path="/",
            submission_id=None,
            poll_interval=1,
            end_time=time() + 60,
        )
        for _ in range(100)
    ]
    events = asyncio.gather(*(first_event(trigger) for trigger in triggers))
    await asyncio.sleep(5)
    app.routed = True
    assert {event["event"] for event in await events} == {"ready"}
    assert 4 <= len(dashboard.requests) <= 2 * 5


def test_nothing_in_an_event_ends_the_triggerer(dashboard: FakeDashboard) -> None:
    """PostgreSQL has no place for NUL, and no message one for half of a surrogate pair."""
    awkward = "a\0b \ud800"
    dashboard.outcomes["s"] = Outcome(status="FAILED", message=awkward, error_type=awkward, log=b"last \0 words\n")
    RayHook().submit_job("true", submission_id="s")
    dashboard.deploy("app", "/app", {}, status="DEPLOY_FAILED", message=awkward)
    watching = RayJobTrigger(role="observer", conn_id="ray_default", submission_id="s", poll_interval=0.1)
    serving = RayServeTrigger(
        conn_id="ray_default", application="app", path="/", submission_id=None, poll_interval=0.1, end_time=time() + 60
    )
    events = [asyncio.run(first_event(each)) for each in (watching, serving)]
    assert events[0]["job"]["message"] == events[0]["job"]["error_type"] == "ab ?"
    assert events[0]["log_tail"] == ["last  words"]
    assert events[1]["fault"] == ["RayServeDeployFailed", "Serve application 'app': DEPLOY_FAILED\nab ?"]


def test_nothing_in_an_error_of_a_cluster_ends_the_triggerer(dashboard: FakeDashboard) -> None:
    dashboard.fail(503, path="/api/version", times=1000, text="busy\0now")
    watching = RayClusterTrigger(
        conn_ids=["ray_default"], room={}, required=1, poll_interval=0.1, end_time=time() + 0.5
    )
    event = asyncio.run(first_event(watching))
    assert (event["event"], event["required"]) == ("timed_out", 1)
    assert event["waiting"]["ray_default"].endswith("503: busynow")


@pytest.mark.parametrize("can_be_read", [True, False])
def test_what_a_trigger_logs_has_been_read_before_it_fires(
    dashboard: FakeDashboard,
    monkeypatch: pytest.MonkeyPatch,
    task_log: TaskLog,
    airflow_log: AirflowLog,
    can_be_read: bool,
) -> None:
    async def nothing(**_: Any) -> None:
        return None

    monkeypatch.setattr(XCom, "aset", staticmethod(nothing))
    monkeypatch.setattr(XCom, "aget_one", staticmethod(nothing))
    monkeypatch.setattr(pacing, "LOG_FINAL_SECONDS", 0.1)
    dashboard.outcomes["s"] = Outcome(status="FAILED", log=b"x" * 10_000 + b"\n")
    if not can_be_read:
        dashboard.fail(502, path="/api/v0/logs", times=1000)
    RayHook().submit_job("true", submission_id="s")
    watching = RayJobTrigger(
        role="observer", conn_id="ray_default", submission_id="s", poll_interval=0.1, fetch_logs=True
    )
    watching.task_instance = task_instance()
    airflow_log.write(b"what others have logged\n")

    async def unread_at_the_event() -> int:
        reading = asyncio.create_task(airflow_log.read_slowly())
        event = await first_event(watching)
        assert event["job"]["status"] == "FAILED"
        reading.cancel()
        return airflow_log.unread

    assert asyncio.run(unread_at_the_event()) == 0
    assert ("x" * 10_000 in task_log.lines) == can_be_read
    assert any("cannot be read" in line for line in task_log.lines) != can_be_read


@pytest.fixture
def trigger(dashboard: FakeDashboard) -> RayJobTrigger:
    """The trigger of a mapped task whose job runs until it is stopped."""
    dashboard.default_outcome = Outcome(ends_after=None, stop_after=1.0)
    RayHook().submit_job("true", submission_id="mine", metadata=MARKED)
    trigger = RayJobTrigger(
        role="owner", conn_id="ray_default", submission_id="mine", poll_interval=0.1, ownership=owns()
    )
    trigger.task_instance = task_instance()
    return trigger


def airflow_says(monkeypatch: pytest.MonkeyPatch, state: str, submission_id: str) -> None:
    """The two answers of the execution API that a trigger asks for when it is killed."""
    states = {"r": {"t_2": state}}
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(lambda **_: states))

    async def current(**_: Any) -> str:
        return submission_id

    monkeypatch.setattr(XCom, "aget_one", staticmethod(current))


@pytest.mark.parametrize(
    ("state", "current", "left"),
    [
        ("deferred", "mine", "RUNNING"),
        ("failed", "mine", "STOPPED"),
        ("running", "mine", "STOPPED"),
        ("deferred", "successor", "STOPPED"),
    ],
    ids=["moved to another triggerer", "failed by a user", "cleared", "cleared and submitted anew"],
)
async def test_a_kill_stops_the_job_unless_the_task_still_waits_for_it(
    dashboard: FakeDashboard,
    trigger: RayJobTrigger,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    current: str,
    left: str,
) -> None:
    airflow_says(monkeypatch, state, current)
    await trigger.on_kill()
    assert dashboard.jobs["mine"].status == left


async def test_a_kill_survives_the_cancellations_of_the_triggerer(
    dashboard: FakeDashboard, trigger: RayJobTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow_says(monkeypatch, "failed", "mine")
    kill = asyncio.ensure_future(trigger.on_kill())
    for _ in range(5):
        await asyncio.sleep(0.2)
        kill.cancel("Trigger cancelled by user action")
    with contextlib.suppress(asyncio.CancelledError):
        await kill
    assert dashboard.jobs["mine"].status == "STOPPED"


async def test_a_kill_while_the_submission_is_under_way_stops_the_job_when_it_arrives(
    dashboard: FakeDashboard, trigger: RayJobTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow_says(monkeypatch, "failed", "slow")
    trigger.submission_id = "slow"
    trigger.submission = submits("slow")
    dashboard.fail("hang", method="POST", path="/api/jobs/")
    running = asyncio.ensure_future(first_event(trigger))
    await asyncio.sleep(0.5)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    killed = asyncio.ensure_future(trigger.on_kill())
    await asyncio.sleep(1)
    await asyncio.to_thread(RayHook().submit_job, "true", submission_id="slow", metadata=MARKED)
    await killed
    assert dashboard.jobs["slow"].status == "STOPPED"


async def test_a_triggerer_that_stops_leaves_the_job_alone(dashboard: FakeDashboard, trigger: RayJobTrigger) -> None:
    running = asyncio.ensure_future(first_event(trigger))
    await asyncio.sleep(3)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await trigger.cleanup()
    assert dashboard.jobs["mine"].status == "RUNNING"


async def test_a_job_can_survive_the_kill_of_its_task(
    dashboard: FakeDashboard, trigger: RayJobTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger.ownership = owns(cancel_on_kill=False)
    await trigger.on_kill()
    assert dashboard.jobs["mine"].status == "RUNNING"
    # One of an earlier attempt, which this job has replaced, may not.
    airflow_says(monkeypatch, "failed", "mine")
    await asyncio.to_thread(RayHook().submit_job, "true", submission_id="older", metadata={NONCE_KEY: "n0"})
    trigger.ownership = owns({"conn_id": "fake", "submission_id": "older", "nonce": "n0"}, cancel_on_kill=False)
    await trigger.on_kill()
    assert [job.status for job in dashboard.jobs.values()] == ["RUNNING", "STOPPED"]


async def test_a_kill_that_reaches_one_cluster_only_says_what_may_still_run(
    dashboard: FakeDashboard, trigger: RayJobTrigger, monkeypatch: pytest.MonkeyPatch, task_log: TaskLog
) -> None:
    airflow_says(monkeypatch, "failed", "mine")
    trigger.ownership = owns({"conn_id": "deleted", "submission_id": "older", "nonce": "n0"})
    await trigger.on_kill()
    assert dashboard.jobs["mine"].status == "STOPPED"
    (warning,) = [line for line in task_log.lines if "may still be running" in line]
    assert warning.startswith("Ray job older on deleted could not be stopped and may still be running: ")


async def test_a_job_of_somebody_else_is_never_stopped(dashboard: FakeDashboard, trigger: RayJobTrigger) -> None:
    trigger.role, trigger.ownership = "observer", None
    await trigger.on_kill()
    assert dashboard.jobs["mine"].status == "RUNNING"


async def test_a_kill_that_fails_says_so(
    trigger: RayJobTrigger, monkeypatch: pytest.MonkeyPatch, task_log: TaskLog
) -> None:
    def unreachable(**_: object) -> None:
        raise ConnectionError("no API server")

    monkeypatch.setattr(pacing, "TRIGGER_KILL_SECONDS", 2.0)
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(unreachable))
    await trigger.on_kill()
    assert "may still be running" in task_log.lines[-1]
    assert "no API server" in task_log.lines[-1]


async def test_a_connection_that_was_deleted_is_reported_to_the_operator(dashboard: FakeDashboard) -> None:
    event = await first_event(RayJobTrigger(role="observer", conn_id="deleted", submission_id="a"))
    kind, message = event["fault"]
    assert kind == "RayTriggerError"
    assert "deleted" in message


async def test_a_kill_while_the_connection_is_looked_up_keeps_its_message(
    dashboard: FakeDashboard, trigger: RayJobTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow calls on_kill only for a cancellation with its own message, and its look-ups lose that."""

    async def slow(hook: RayHook) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        raise asyncio.CancelledError

    monkeypatch.setattr(RayHook, "aget_config", slow)
    watching = asyncio.create_task(first_event(trigger))
    await asyncio.sleep(0.1)
    watching.cancel("by a user")
    with pytest.raises(asyncio.CancelledError, match="by a user"):
        await watching


async def test_a_connection_of_another_type_is_reported_to_the_operator(
    dashboard: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", '{"conn_type": "http"}')
    event = await first_event(RayJobTrigger(role="observer", conn_id="other", submission_id="a"))
    assert event["fault"][0] == "RayConfigError"


async def test_a_kill_sits_out_a_passing_fault_of_airflow(
    dashboard: FakeDashboard, trigger: RayJobTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow_says(monkeypatch, "failed", "mine")
    answer, faults = RuntimeTaskInstance.get_task_states, iter([ConnectionError("no API server")])

    def states(**which: Any) -> Any:
        for fault in faults:
            raise fault
        return answer(**which)

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(states))
    await trigger.on_kill()
    assert dashboard.jobs["mine"].status == "STOPPED"


async def test_a_trigger_that_comes_too_late_submits_nothing(dashboard: FakeDashboard, trigger: RayJobTrigger) -> None:
    trigger.submission_id = "late"
    trigger.submission = submits("late")
    trigger.end_time = 1.0
    event = await first_event(trigger)
    assert event["fault"][0] == "RayTriggerError"
    assert "no triggerer picked it up" in event["fault"][1]
    assert "late" not in dashboard.jobs


async def test_a_key_that_is_not_the_workers_is_named(trigger: RayJobTrigger) -> None:
    trigger.submission = {**submits("s"), "spec": "encrypted elsewhere"}
    event = await first_event(trigger)
    assert event["fault"][0] == "RayConfigError"
    assert "fernet_key" in event["fault"][1]
