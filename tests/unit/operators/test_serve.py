"""RayServeOperator against a fake Serve proxy."""

from __future__ import annotations

import json
import re
import threading
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from aiohttp import web
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_ray.client import errors, pacing
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.operators.serve import RayServeOperator
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.conftest import TaskLog, connect
from tests.unit.deferral import run_deferred

ROOT = Path(__file__).parents[3]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferrable"])


def operator(**arguments: Any) -> RayServeOperator:
    given = {"task_id": "call", "application": "demo", "poll_interval": 0.1, "timeout": 20, "deferrable": False}
    return RayServeOperator(**{**given, **arguments})


def run(task: RayServeOperator, context: Any) -> Any:
    return run_deferred(task, context) if task.deferrable else task.execute(context)


async def echo(request: web.Request) -> web.Response:
    body = await request.text()
    return web.json_response({"method": request.method, "path": request.path, "body": body and json.loads(body)})


async def page(request: web.Request) -> web.Response:
    return web.Response(text="<html>hello", content_type="text/html")


async def failure(request: web.Request) -> web.Response:
    return web.Response(status=500, text="Internal Server Error")


async def chunks(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(100):
        await response.write(b"[" * 1000)
    return response


@MODES
def test_waits_for_the_application_and_returns_its_json(
    dashboard: FakeDashboard, context: Any, deferrable: bool
) -> None:
    application = dashboard.deploy("demo", "/demo", {"output": [1]}, status="DEPLOYING")
    timer = threading.Timer(0.5, lambda: setattr(application, "status", "RUNNING"))
    timer.start()
    assert run(operator(path="/output", deferrable=deferrable), context) == {"output": [1]}
    calls = dashboard.asked("GET", "/demo/output")
    assert len(calls) == 1


@MODES
def test_the_log_tells_what_is_waited_for_and_what_came(
    dashboard: FakeDashboard, context: Any, task_log: TaskLog, deferrable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "SERVE_ROUND_SECONDS", 0.5)
    dashboard.fail("close", path="/api/serve", times=4)

    application = dashboard.deploy("demo", "/demo", {"ok": True}, status="NOT_STARTED")

    def later(seconds: float, **changes: Any) -> None:
        threading.Timer(seconds, lambda: vars(application).update(changes)).start()

    later(1.6, status="DEPLOYING", message="Waiting for 1 CPU")
    later(3.2, status="RUNNING", routed=False)
    later(4.8, routed=True)
    dashboard.fail(503, path="/demo", text="at capacity", times=2)
    assert run(operator(path="/x", deferrable=deferrable), context) == {"ok": True}
    lines = [line for line in task_log.lines if "Serve" in line or "status 200" in line]
    waited = [line.removeprefix("Waiting for Serve application 'demo': ") for line in lines[:-1]]
    assert all(line.startswith("Waiting for Serve application 'demo': ") for line in lines[:-1])
    news = [line for number, line in enumerate(waited) if line not in waited[:number]]
    assert len(news) == 5
    assert "(tolerated for 120 s)" in news[0]
    assert news[1:3] == ["status=NOT_STARTED", "status=DEPLOYING Waiting for 1 CPU"]
    assert news[3] == f"the proxy at {dashboard.serve_url} has the routes []"
    assert news[4] == f"the call is repeated after GET {dashboard.serve_url}/demo/x: 503: at capacity"
    # The worker says it once more before it defers.
    assert len(waited) <= 6
    assert re.fullmatch(rf"GET {dashboard.serve_url}/demo/x: status 200, 12 bytes in \d+\.\d\d s", lines[-1])


def test_the_log_of_the_hook_tells_the_same(dashboard: FakeDashboard, task_log: TaskLog) -> None:
    application = dashboard.deploy("demo", "/demo", {"ok": True}, status="DEPLOYING")
    threading.Timer(0.5, lambda: setattr(application, "status", "RUNNING")).start()
    assert RayHook().call_application("demo", timeout=20, method="post") == {"ok": True}
    assert task_log.lines[0] == "Waiting for Serve application 'demo': status=DEPLOYING"
    assert task_log.lines[-1].startswith(f"POST {dashboard.serve_url}/demo/: status 200, 12 bytes in ")


def test_does_not_defer_when_the_application_answers_already(dashboard: FakeDashboard, context: Any) -> None:
    dashboard.deploy("demo", "/demo", {"ready": True})
    assert operator(deferrable=True).execute(context) == {"ready": True}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_calls_with_every_method_a_body_and_headers(dashboard: FakeDashboard, context: Any, method: str) -> None:
    dashboard.deploy("demo", "/demo", echo)
    task = operator(method=method, path="/x/y", data={"ü": [1]}, headers={"X-Mine": "yes"}, request_timeout=7)
    assert task.execute(context) == {"method": method, "path": "/demo/x/y", "body": {"ü": [1]}}
    (request,) = dashboard.asked(method, "/demo/x/y")
    assert request.headers["X-Mine"] == "yes"
    assert request.headers["x-request-timeout-seconds"].startswith("7")


@pytest.mark.parametrize(("page", "asked"), [("README.md", "/models/"), ("docs/operators.md", "/models/predict")])
def test_the_example_in_the_docs_calls_what_it_says(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch, page: str, asked: str
) -> None:
    connect(monkeypatch, "ray_lab", dashboard)
    dashboard.deploy("model", "/models", echo)
    (example,) = re.findall(r"^ *(RayServeOperator\(.*?\))$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    task = eval(example, {"RayServeOperator": RayServeOperator})
    assert task.execute(context) == {"method": "POST", "path": asked, "body": {"x": 1}}


def test_calls_a_route_without_naming_the_application(dashboard: FakeDashboard, context: Any) -> None:
    dashboard.deploy("demo", "/demo", echo)
    assert operator(application=None, path="/demo/x").execute(context)["path"] == "/demo/x"


@MODES
def test_says_what_was_missing_when_time_is_up(dashboard: FakeDashboard, context: Any, deferrable: bool) -> None:
    dashboard.deploy("demo", "/demo", {}, status="DEPLOYING", message="Waiting for 1 CPU")
    with pytest.raises(errors.RayServeNotReady, match="'demo' did not answer in time: .*DEPLOYING.*Waiting for 1 CPU"):
        run(operator(deferrable=deferrable, timeout=0.5), context)


@MODES
def test_a_silent_cluster_does_not_delay_the_end(dashboard: FakeDashboard, context: Any, deferrable: bool) -> None:
    dashboard.fail("hang", path="/api/serve", times=100)
    started = monotonic()
    with pytest.raises(errors.RayServeNotReady, match="no answer in time"):
        run(operator(deferrable=deferrable, timeout=2), context)
    assert monotonic() - started < 10


@MODES
def test_a_failed_deployment_ends_the_wait(dashboard: FakeDashboard, context: Any, deferrable: bool) -> None:
    application = dashboard.deploy("demo", "/demo", {}, status="DEPLOYING", message="ImportError: no module")
    threading.Timer(0.3, lambda: setattr(application, "status", "DEPLOY_FAILED")).start()
    with pytest.raises(errors.RayServeDeployFailed, match="ImportError"):
        run(operator(deferrable=deferrable), context)


@MODES
def test_a_dead_cluster_ends_the_wait(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    monkeypatch.setattr(pacing, "FAULT_BUDGET_SECONDS", 0.5)
    dashboard.fail("close", path="/api/serve", times=1000)
    with pytest.raises(errors.RayClusterUnavailable):
        run(operator(deferrable=deferrable, timeout=600), context)


@MODES
def test_the_end_of_the_job_that_is_to_serve_ends_the_wait(
    dashboard: FakeDashboard, context: Any, deferrable: bool
) -> None:
    dashboard.outcomes["a"] = Outcome(ends_after=0.5, status="FAILED", exit_code=2, message="amount: got 0")
    RayHook().submit_job("true", submission_id="a")
    with pytest.raises(errors.RayServeError, match="'a' ended before .*FAILED.*2\namount: got 0"):
        run(operator(submission_id="a", deferrable=deferrable), context)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (page, "text/html, not JSON .*; it begins with '<html>hello'"),
        (failure, "500: Internal Server Error"),
        (chunks, r"more than 5000 bytes, the limit \(max_answer_bytes\) is 5000"),
        ({"long": "x" * 6000}, "the answer has 60.. bytes, the limit"),
    ],
)
def test_an_unusable_answer_is_described(dashboard: FakeDashboard, context: Any, answer: Any, message: str) -> None:
    dashboard.deploy("demo", "/demo", answer)
    with pytest.raises(errors.RayServeBadAnswer, match=message):
        operator(max_answer_bytes=5000).execute(context)
    assert len(dashboard.asked("GET", "/demo")) == 1


def test_repeats_a_call_that_the_application_did_not_take(dashboard: FakeDashboard, context: Any) -> None:
    dashboard.deploy("demo", "/demo", {"ok": True})
    dashboard.fail(503, method="POST", path="/demo", times=2)
    assert operator(method="POST").execute(context) == {"ok": True}
    assert len(dashboard.asked("POST", "/demo")) == 3


@pytest.mark.parametrize("fault", [408, "close"])
def test_does_not_repeat_a_post_that_may_have_worked(dashboard: FakeDashboard, context: Any, fault: Any) -> None:
    dashboard.deploy("demo", "/demo", {"ok": True})
    dashboard.fail(fault, method="POST", path="/demo")
    with pytest.raises((errors.RayServeBadAnswer, errors.RayClusterUnavailable)):
        operator(method="POST").execute(context)
    assert len(dashboard.asked("POST", "/demo")) == 1


def test_waits_for_an_ingress_that_knows_no_serve_yet(dashboard: FakeDashboard, context: Any) -> None:
    dashboard.deploy("demo", "/demo", {"ok": True})
    dashboard.fail(404, path="/-/routes", times=2, text="default backend")
    assert operator().execute(context) == {"ok": True}


def test_never_sends_the_clusters_token_to_serve(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeDashboard(token="cluster-token") as dashboard:
        dashboard.deploy("demo", "/demo", {})
        extra = {"serve_token": "serve-token", "auth_headers": {"X-Proxy": "for the dashboard"}}
        connect(monkeypatch, "fake", dashboard, password="cluster-token", extra=extra)
        operator(conn_id="fake").execute(context)
        sent = [request.headers for request in dashboard.requests if request.server == "serve"]
    assert {headers["Authorization"] for headers in sent} == {"Bearer serve-token"}
    assert not any("cluster-token" in str(headers) or "X-Proxy" in headers for headers in sent)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "PATCH"}, "method: got 'PATCH'; expected one of GET, POST, PUT, DELETE"),
        ({"data": {1, 2}}, "data: .*not JSON"),
        ({"headers": {"a": "b\nc"}}, "headers: got a line break or control character in 'a'"),
        ({"headers": {"a": 1}}, "headers: .*string values"),
        ({"path": None}, "path: got None; expected a path"),
        ({"timeout": "soon"}, "timeout: got 'soon'; expected a number of seconds"),
        ({"conn_id": ["fake", "{{ 'other' }}"]}, r"conn_id: got \['fake', .*; expected exactly one cluster"),
        ({"max_answer_bytes": 0}, "max_answer_bytes: got 0"),
    ],
)
def test_bad_arguments_are_named(
    dashboard: FakeDashboard, context: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.RayConfigError, match=message):
        operator(**arguments).execute(context)
    assert not dashboard.requests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conn_id": ["a", "b"]}, r"conn_id: got \['a', 'b'\]; expected exactly one cluster"),
        ({"conn_id": "a, b"}, r"conn_id: got 'a, b', which stands for \['a', 'b'\]; expected exactly one cluster"),
        ({"conn_id": []}, "conn_id: got an empty list"),
        ({"conn_id": None}, "conn_id: got None of type NoneType"),
        ({"timeout": "soon"}, "timeout: got 'soon'; expected a number of seconds above 0, or a timedelta"),
        ({"poll_interval": 0}, "poll_interval: got 0; expected a number of seconds above 0"),
        ({"request_timeout": timedelta(seconds=-1)}, "request_timeout: got datetime.timedelta"),
    ],
)
def test_what_is_literal_and_wrong_is_named_in_the_dag_file(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.RayConfigError, match=message):
        operator(**arguments)


def test_durations_may_be_timedeltas(dashboard: FakeDashboard, context: Any) -> None:
    dashboard.deploy("demo", "/demo", {"ok": True})
    task = operator(
        request_timeout=timedelta(seconds=7), timeout=timedelta(minutes=1), poll_interval=timedelta(seconds=0.5)
    )
    assert (task.timeout, task.poll_interval) == (60, 0.5)
    assert task.execute(context) == {"ok": True}
    (request,) = dashboard.asked("GET", "/demo")
    assert request.headers["x-request-timeout-seconds"].startswith("7")


@MODES
@pytest.mark.parametrize("given", [["fake"], "['fake']", "place=here"])
def test_one_cluster_in_every_form(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool, given: Any
) -> None:
    connect(monkeypatch, "fake", dashboard, extra={"labels": "place=here"})
    dashboard.deploy("demo", "/demo", {"ok": True})
    dashboard.fail(404, path="/-/routes")
    assert run(operator(conn_id=given, deferrable=deferrable), context) == {"ok": True}


def test_a_selector_of_several_clusters_is_refused(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for conn_id in ("fake", "other"):
        connect(monkeypatch, conn_id, dashboard, extra={"labels": "place=here"})
    with pytest.raises(
        errors.RayConfigError, match=r"'place=here', which stands for \['fake', 'other'\]; expected exactly one"
    ):
        operator(conn_id="place=here").execute(context)
    assert not dashboard.requests


def test_defers_to_a_trigger_that_only_waits(dashboard: FakeDashboard, context: Any) -> None:
    with pytest.raises(TaskDeferred):
        operator(deferrable=True, method="POST").execute(context)
    assert not dashboard.asked("POST", "/")


def test_credentials_in_a_call_are_not_shown(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import DAG
    from airflow.sdk._shared.secrets_masker import SecretsMasker
    from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields

    monkeypatch.setattr(SecretsMasker, "mask_secrets_in_logs", True)
    headers = {"Cookie": "{{ params.cookie }}", "X-Mode": "development"}
    with DAG("d", schedule=None):
        task = RayServeOperator(task_id="call", path="/a?sig=s1gnature-x&page=2", headers=headers, data={"n": "false"})
    context["params"] = {"cookie": "session-0123"}
    task.render_template_fields(context)
    shown = _serialize_rendered_fields(task)
    assert (shown["path"], shown["data"]) == ("/a?sig=***&page=2", {"n": "false"})
    assert shown["headers"] == {"Cookie": "***", "X-Mode": "development"}
