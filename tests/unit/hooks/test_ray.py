"""RayHook: from a connection to a client, and the blocking methods for Dag authors."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, serde
from airflow.sdk._shared.secrets_masker import redact
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_ray.client import errors
from airflow_provider_ray.client.jobs.submission import INSTALLATION_KEY, NONCE_KEY
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.operators.serve import RayServeOperator
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.fake_dashboard.state import Job
from tests.unit.conftest import TaskLog, connect


def test_submits_follows_and_stops_jobs(dashboard: FakeDashboard) -> None:
    hook = RayHook()
    dashboard.default_outcome = Outcome(ends_after=None, log=b"caf\xc3\xa9 \xff\n")
    submission_id = hook.submit_job(["python", "a b.py"], parameters={"x": 1}, metadata={"team": "a"})
    job = hook.get_job(submission_id)
    assert (job.status, job.entrypoint) == ("RUNNING", "python 'a b.py' '{\"x\": 1}'")
    assert job.metadata is not None
    assert job.metadata["team"] == "a"
    assert hook.get_logs(submission_id) == "café \ufffd\n"
    stopped = hook.stop_job(submission_id)
    assert stopped is not None
    assert stopped.status == "STOPPED"
    assert hook.stop_job("unknown") is None
    with pytest.raises(errors.RayNotFound, match="'?unknown"):
        hook.get_job("unknown")


def test_old_records_are_those_of_a_day_at_least(dashboard: FakeDashboard) -> None:
    RayHook().submit_job("true", submission_id="young")
    assert RayHook().delete_old_jobs(timedelta(days=1)) == 0
    for given in (timedelta(hours=23), timedelta(0), 86_400):
        with pytest.raises(errors.RayConfigError, match="older_than: got .*at least a day"):
            RayHook().delete_old_jobs(given)  # type: ignore[arg-type]


def test_what_it_returns_can_be_returned_from_a_task(dashboard: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    dashboard.deploy("demo", "/demo", {})
    job = RayHook().get_job(RayHook().submit_job("true", metadata={"team": "a"}))
    returned = [job, *RayHook().list_applications()]
    monkeypatch.setattr(serde, "_match", lambda name: name.startswith("airflow_provider_ray."))
    assert serde.deserialize(json.loads(json.dumps(serde.serialize(returned)))) == returned


def test_lists_and_calls_applications(dashboard: FakeDashboard) -> None:
    dashboard.deploy("demo", "/demo", {"answer": 42})
    (application,) = RayHook().list_applications()
    assert (application.name, application.status, application.route_prefix) == ("demo", "RUNNING", "/demo")
    assert RayHook().call_application("demo") == {"answer": 42}
    with pytest.raises(errors.RayServeNotReady, match="'other'.*no such application"):
        RayHook().call_application("other")


def test_durations_of_a_call(dashboard: FakeDashboard) -> None:
    dashboard.deploy("demo", "/demo", {"answer": 42})
    seven = timedelta(seconds=7)
    assert RayHook().call_application("demo", timeout=seven, request_timeout=seven) == {"answer": 42}
    (request,) = dashboard.asked("GET", "/demo")
    assert request.headers["x-request-timeout-seconds"].startswith("7")
    with pytest.raises(
        errors.RayConfigError, match="timeout: got 'soon'; expected a number of seconds of 0 or more, or a"
    ):
        RayHook().call_application("demo", timeout="soon")  # type: ignore[arg-type]
    with pytest.raises(errors.RayConfigError, match="request_timeout: got 0; expected a number of seconds above 0"):
        RayHook().call_application("demo", request_timeout=0)


def test_waits_for_a_job_and_shows_its_log(dashboard: FakeDashboard, task_log: TaskLog) -> None:
    dashboard.default_outcome = Outcome(ends_after=0.3, log=b"one\ntwo\n")
    hook = RayHook()
    job = hook.wait_for_job(hook.submit_job("true"), poll_interval=0.1)
    assert (job.status, job.seconds is not None) == ("SUCCEEDED", True)
    assert [line for line in task_log.lines if line in ("one", "two")] == ["one", "two"]


def test_a_job_that_is_waited_for_is_not_owned(dashboard: FakeDashboard) -> None:
    dashboard.default_outcome = Outcome(ends_after=None)
    hook = RayHook()
    name = hook.submit_job("sleep")
    with pytest.raises(errors.RayJobTimeout, match="did not end in time"):
        hook.wait_for_job(name, timeout=timedelta(seconds=0.3), poll_interval=0.1)
    assert dashboard.jobs[name].status == "RUNNING"
    with pytest.raises(errors.RayConfigError, match="^timeout: got 0"):
        hook.wait_for_job(name, timeout=0)


def test_a_job_that_fails_while_it_is_waited_for(dashboard: FakeDashboard, task_log: TaskLog) -> None:
    dashboard.default_outcome = Outcome(status="FAILED", exit_code=1, log=b"why\n")
    hook = RayHook()
    with pytest.raises(errors.RayJobFailed, match="why"):
        hook.wait_for_job(hook.submit_job("false"), fetch_logs=False)
    assert "why" not in task_log.lines


def test_what_authors_write_is_submitted(dashboard: FakeDashboard, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("six\n")
    name = RayHook().submit_job(
        ["python", Path("main.py"), 5],
        parameters=("a", Path("/data")),
        runtime_env={"pip": tmp_path / "requirements.txt", "working_dir": tmp_path},
        metadata={"number": 1},
        entrypoint_num_cpus="0.5",
    )
    sent = dashboard.jobs[name].body
    assert sent["entrypoint"] == """python main.py 5 '["a", "/data"]'"""
    assert sent["runtime_env"]["pip"] == ["six"]
    assert sent["runtime_env"]["working_dir"].startswith("gcs://airflow_")
    assert (sent["metadata"]["number"], sent["entrypoint_num_cpus"]) == ("1", 0.5)


def test_old_records_of_this_airflow_are_deleted(dashboard: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__RAY__INSTALLATION", "prod")
    for name, hours, owner in (("old", 49, "prod"), ("young", 47, "prod"), ("foreign", 49, "staging")):
        body = {"entrypoint": "true", "submission_id": name, "metadata": {NONCE_KEY: "n", INSTALLATION_KEY: owner}}
        age = hours * 3600.0
        submitted_ms = int((time.time() - age) * 1000)
        dashboard.jobs[name] = Job(body, Outcome(), submitted=time.monotonic() - age, submitted_ms=submitted_ms)
    assert RayHook().delete_old_jobs(timedelta(days=2)) == 1
    assert set(dashboard.jobs) == {"young", "foreign"}


@pytest.mark.parametrize("age", [timedelta(hours=23), 172_800, None])
def test_an_age_of_records_that_cannot_work(age: Any) -> None:
    with pytest.raises(errors.RayConfigError, match="older_than: got .*; expected a timedelta of at least a day"):
        RayHook().delete_old_jobs(age)


def test_capacity(dashboard: FakeDashboard) -> None:
    dashboard.used["CPU"] = 0.5
    capacity = RayHook().get_capacity()
    assert (capacity.head_alive, capacity.nodes, capacity.running_jobs) == (True, 1, 0)
    assert capacity.free is not None
    assert capacity.free["CPU"] == 1.5


def test_an_unknown_connection_is_named(dashboard: FakeDashboard) -> None:
    with pytest.raises(AirflowNotFoundException, match="nowhere"):
        RayHook("nowhere").get_config()


def test_a_connection_of_another_type_may_come_from_default_args(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "snowflake", "host": "x"}))
    with DAG("d", schedule=None, default_args={"conn_id": "warehouse"}):
        task = RayServeOperator(task_id="call", application="demo")
    with pytest.raises(errors.RayConfigError) as caught:
        task.execute({})
    assert str(caught.value) == (
        "conn_id: got 'warehouse' of type 'snowflake'; expected a connection of type 'ray'; "
        "a conn_id in default_args reaches every task that does not set its own"
    )


def test_a_bad_field_is_named_with_its_connection(dashboard: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "fake", dashboard, extra={"verify": "no"})
    with pytest.raises(errors.RayConfigError, match=r"connection 'fake', extra: got unknown \['verify'\]"):
        RayHook("fake").get_config()


def test_the_environment_has_no_say(dashboard: FakeDashboard) -> None:
    RayHook().submit_job("true")
    assert len(dashboard.jobs) == 1
    assert all("Authorization" not in request.headers for request in dashboard.requests)


@pytest.mark.anyio
async def test_the_same_on_an_event_loop(dashboard: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "fake", dashboard, password="the-token")
    config = await RayHook("fake").aget_config()
    assert (config.url, config.token) == (dashboard.url, "the-token")
    with pytest.raises(RuntimeError, match="event loop"):
        RayHook("fake").get_job("a")


def test_secrets_are_masked_in_logs(dashboard: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"auth_headers": {"X-Proxy": "header-secret"}, "serve_token": "serve-secret"}
    connect(monkeypatch, "fake", dashboard, password="token-secret", extra=extra)
    config = RayHook("fake").get_config()
    assert redact("a token-secret b header-secret c serve-secret d") == "a *** b *** c *** d"
    assert "secret" not in repr(config)


def test_connection_line_of_a_healthy_cluster(dashboard: FakeDashboard) -> None:
    assert RayHook().test_connection() == (
        True,
        "Ray 2.60.0, 1 of 1 nodes alive, no authentication, Serve not running",
    )
    dashboard.deploy("demo", "/demo", {})
    assert RayHook().test_connection()[1].endswith(f"Serve on port {dashboard.serve_port} (applications: 1)")


def test_connection_line_of_a_cluster_with_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeDashboard(token="right-token") as dashboard:
        for password, expected in (
            ("right-token", (True, "token accepted")),
            ("wrong-token", (False, "403, the token in the password field")),
            (None, (False, "401")),
        ):
            connect(monkeypatch, "fake", dashboard, password=password)
            ok, line = RayHook("fake").test_connection()
            assert ok is expected[0]
            assert expected[1] in line
            assert "\n" not in line
            assert "-token" not in line


def test_connection_line_without_a_dashboard(dashboard: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"host": "127.0.0.1", "port": free}, "no connection"),
        ({"host": dashboard.serve_url}, "which Ray never returns here"),
        ({"host": ""}, "host: got nothing; expected the address of a Ray dashboard"),
        ({"host": "ray://127.0.0.1:10001"}, "not a ray:// or GCS address"),
    ]
    for fields, reason in cases:
        monkeypatch.setenv("AIRFLOW_CONN_FAKE", json.dumps({"conn_type": "ray", **fields}))
        ok, line = RayHook("fake").test_connection()
        assert not ok
        assert reason in line


def test_a_proxy_that_wants_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeDashboard(token="t0ken-of-ray", proxy_login="user:pass phrase") as fake:
        for fields, said in (
            (
                {"login": "user", "password": "pass phrase", "extra": {"cluster_token": "t0ken-of-ray"}},
                "token accepted",
            ),
            ({"login": "user", "password": "wrong"}, "401, login and password of the connection were rejected"),
            ({"login": "user", "password": "pass phrase"}, "cluster wants another token in the cluster_token field"),
            ({"password": "t0ken-of-ray"}, "401"),
        ):
            connect(monkeypatch, "fake", fake, **fields)
            assert said in RayHook("fake").test_connection()[1]
        connect(
            monkeypatch, "fake", fake, login="user", password="pass phrase", extra={"cluster_token": "t0ken-of-ray"}
        )
        assert RayHook("fake").submit_job("true")
        basic = base64.b64encode(b"user:pass phrase").decode()
        assert redact(f"a pass phrase b {basic} c t0ken-of-ray") == "a *** b *** c ***"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"extra": [1]}, "extra: got JSON of type list; expected a JSON object"),
        ({"extra": "7"}, "extra: got JSON of type int"),
        ({"extra": '"s3cret"'}, "extra: got JSON of type str"),
        ({"extra": '{"serve_token": "s3cret'}, "extra: got text that is not JSON"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_connection_that_is_broken_is_an_error_of_its_own(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], error: str, is_async: bool
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", json.dumps({"conn_type": "ray", "host": "x", **fields}))
    with pytest.raises(errors.RayConfigError, match=f"connection 'broken'.*{error}") as caught:
        asyncio.run(RayHook("broken").aget_config()) if is_async else RayHook("broken").get_config()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("extra", [None, "", "{}", "null", {}, " {} "])
def test_a_connection_without_extras_is_fine(monkeypatch: pytest.MonkeyPatch, extra: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PLAIN", json.dumps({"conn_type": "ray", "host": "x", "extra": extra}))
    assert RayHook("plain").get_config().url == "http://x:8265"
