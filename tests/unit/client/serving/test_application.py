from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import web

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import (
    RayAuthError,
    RayClusterUnavailable,
    RayConfigError,
    RayJobLost,
    RayServeBadAnswer,
    RayServeDeployFailed,
    RayServeError,
    RayServeNotReady,
)
from airflow_provider_ray.client.serving.application import ServeRoute
from tests.fake_dashboard import FakeDashboard, Outcome

pytestmark = pytest.mark.anyio

TOKEN = "t0ken-of-the-cluster"
QUICKLY: dict[str, float] = {"poll_interval": 0.1, "timeout": 5.0}


@pytest.fixture
def secured() -> Iterator[FakeDashboard]:
    with FakeDashboard(token=TOKEN) as dashboard:
        yield dashboard


@pytest.fixture
async def client(secured: FakeDashboard) -> AsyncIterator[RayClient]:
    config = ClusterConfig(url=secured.url, token=TOKEN, auth_headers={"X-Proxy": "pr0xy"}, read_timeout=2)
    async with RayClient(config) as opened:
        yield opened


async def echo(request: web.Request) -> web.Response:
    seen = {"method": request.method, "path": request.path_qs, "headers": dict(request.headers)}
    return web.json_response({**seen, "body": (await request.read()).decode()})


def soon(seconds: float, change: Any) -> None:
    timer = threading.Timer(seconds, change)
    timer.daemon = True
    timer.start()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_a_call_brings_what_was_given(client: RayClient, secured: FakeDashboard, method: str) -> None:
    secured.deploy("app", "/app", echo)
    target = ServeRoute(client, "app", "/sub/path?x=1&y=é")
    answer = await target.call(
        **QUICKLY, method=method, data={"text": "é\n$()"}, headers={"X-Own": "1"}, request_timeout=7.0
    )
    assert (answer["method"], answer["path"]) == (method, "/app/sub/path?x=1&y=%C3%A9")
    assert json.loads(answer["body"]) == {"text": "é\n$()"}
    assert answer["headers"]["Content-Type"] == "application/json"
    assert answer["headers"]["X-Own"] == "1"
    assert answer["headers"]["x-request-timeout-seconds"] == "7.0"


async def test_headers_of_the_caller_win(client: RayClient, secured: FakeDashboard) -> None:
    secured.deploy("app", "/app", echo)
    headers = {"X-Request-Timeout-Seconds": "1", "content-type": "application/x-json"}
    answer = await ServeRoute(client, "app", "/").call(**QUICKLY, method="POST", data=0, headers=headers)
    assert answer["headers"]["X-Request-Timeout-Seconds"] == "1"
    assert answer["headers"]["Content-Type"] == "application/x-json"
    assert answer["body"] == "0"


async def test_the_clusters_credentials_never_reach_serve(client: RayClient, secured: FakeDashboard) -> None:
    secured.deploy("app", "/app", echo)
    await ServeRoute(client, "app", "/").call(**QUICKLY)
    secured.fail(503, path="/app")
    await ServeRoute(client, "app", "/").call(**QUICKLY)
    at_serve = [request for request in secured.requests if request.server == "serve"]
    assert len(at_serve) >= 4
    for request in at_serve:
        assert TOKEN not in str(request)
        assert not {"authorization", "x-ray-authorization", "x-proxy", "cookie"} & {
            key.lower() for key in request.headers
        }


async def test_serves_own_credentials_reach_serve_alone(secured: FakeDashboard) -> None:
    secured.deploy("app", "/app", echo)
    config = ClusterConfig(
        url=secured.url,
        token=TOKEN,
        serve_url=secured.serve_url,
        serve_token="s3rve",
        serve_auth_headers={"X-Own": "0wn"},
    )
    async with RayClient(config) as client:
        answer = await ServeRoute(client, "app", "/").call(**QUICKLY)
    assert (answer["headers"]["Authorization"], answer["headers"]["X-Own"]) == ("Bearer s3rve", "0wn")
    dashboard = [str(request) for request in secured.requests if request.server == "dashboard"]
    assert dashboard
    assert not any("s3rve" in request or "0wn" in request for request in dashboard)


async def test_a_proxy_that_wants_a_token_names_its_field(client: RayClient, secured: FakeDashboard) -> None:
    secured.deploy("app", "/app", echo)
    secured.fail(401, path="/-/routes")
    with pytest.raises(RayAuthError, match=r"401.*serve_token field"):
        await ServeRoute(client, "app", "/").wait(**QUICKLY)


@pytest.mark.parametrize(
    ("prefix", "application", "path", "asked"),
    [
        ("/app", "app", "/", "/app"),
        ("/app", "app", "sub", "/app/sub"),
        ("/app", "app", "/sub/", "/app/sub/"),
        ("/app", None, "/app/sub", "/app/sub"),
        ("/app", None, "app?x=1", "/app?x=1"),
        ("/", "app", "/", "/"),
        ("/", "app", "/sub", "/sub"),
        ("/", None, "/anything", "/anything"),
    ],
)
async def test_addresses(
    client: RayClient, secured: FakeDashboard, prefix: str, application: str | None, path: str, asked: str
) -> None:
    secured.deploy("app", prefix, echo)
    assert await ServeRoute(client, application, path).wait(**QUICKLY) == f"{secured.serve_url}{asked}"
    assert (await ServeRoute(client, application, path).call(**QUICKLY))["path"] == asked


async def test_the_wait_says_what_was_missing(client: RayClient, secured: FakeDashboard) -> None:
    async def missing(application: str | None, path: str = "/") -> str:
        with pytest.raises(RayServeNotReady, match="did not answer in time") as caught:
            await ServeRoute(client, application, path).wait(poll_interval=0.1, timeout=0.2)
        return str(caught.value)

    assert "no such application" in await missing("app")
    assert "Serve is not running" in await missing(None, "/app")
    app = secured.deploy("app", "/app", echo, status="DEPLOYING", message="building")
    assert "status=DEPLOYING route_prefix=None building" in await missing("app")
    app.status, app.routed = "RUNNING", False
    assert "has the routes []" in await missing("app")
    app.routed = True
    assert "has the routes ['/app']" in await missing(None, "/application")
    secured.fail(503, path="/api/serve", times=99, text="starting")
    assert "503: starting" in await missing("app")


async def test_the_wait_ends_when_the_application_answers(client: RayClient, secured: FakeDashboard) -> None:
    app = secured.deploy("app", "/app", echo, status="DEPLOYING", routed=False)
    soon(0.2, lambda: setattr(app, "status", "RUNNING"))
    soon(0.5, lambda: setattr(app, "routed", True))
    started = time.monotonic()
    await ServeRoute(client, "app", "/").wait(**QUICKLY)
    assert 0.4 < time.monotonic() - started < 3


async def test_a_failed_deployment_ends_the_wait(client: RayClient, secured: FakeDashboard) -> None:
    secured.deploy("app", "/app", echo, status="DEPLOY_FAILED", message="ModuleNotFoundError: nothing")
    with pytest.raises(RayServeDeployFailed, match=r"'app': DEPLOY_FAILED\nModuleNotFoundError"):
        await ServeRoute(client, "app", "/").wait(**QUICKLY)


async def test_a_job_that_ends_before_it_serves_ends_the_wait(client: RayClient, secured: FakeDashboard) -> None:
    secured.outcomes["j1"] = Outcome(ends_after=0.3, status="FAILED", exit_code=2, message="no luck")
    await client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1"))
    with pytest.raises(RayServeError, match=r"'j1' ended before .* status=FAILED driver_exit_code=2\nno luck"):
        await ServeRoute(client, "app", "/", "j1").wait(**QUICKLY)


async def test_a_job_that_its_cluster_forgets_ends_the_wait(
    client: RayClient, secured: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "SECOND_LOOK_SECONDS", 0.2)
    with pytest.raises(RayJobLost, match=r"'j1' is lost: its cluster has no record of it"):
        await ServeRoute(client, "app", "/", "j1").wait(**QUICKLY)


async def test_one_404_does_not_end_the_wait(
    client: RayClient, secured: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "SECOND_LOOK_SECONDS", 0.2)
    await client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1"))
    secured.deploy("app", "/app", {"output": []})
    secured.fail(404, path="/api/jobs/j1")
    assert await ServeRoute(client, "app", "/", "j1").call(**QUICKLY) == {"output": []}


async def test_an_application_may_outlive_its_job(client: RayClient, secured: FakeDashboard) -> None:
    await client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1"))
    secured.deploy("app", "/app", {"output": []})
    assert await ServeRoute(client, "app", "/", "j1").call(**QUICKLY) == {"output": []}


async def test_behind_tls_the_address_of_serve_must_be_given() -> None:
    async with RayClient(ClusterConfig(url="https://ray.example")) as client:
        with pytest.raises(RayConfigError, match=r"^serve_url: got nothing; expected the address of Serve"):
            await client.serve.base_url()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (web.Response, "500: no detail"),
        (lambda: web.Response(text="plain words"), r"text/plain, not JSON .*; it begins with 'plain words'"),
        (lambda: web.Response(body=b"\xff\xfe"), "not JSON"),
        (lambda: web.Response(text='{"loss": NaN}'), "not JSON"),
        (lambda: web.Response(text="[1e999]"), "not JSON"),
        (lambda: web.Response(text=str(2**64)), "not JSON"),
        (lambda: web.Response(text='"\\ud800"'), "not JSON"),
        (lambda: web.Response(text='{"a\\u0000": 1}'), r"not JSON that XCom can hold \(NUL"),
        (lambda: web.Response(body=b"[" * 100_000), "not JSON"),
        (
            lambda: web.Response(text='"' + "x" * 2000 + '"'),
            r"the answer has 2002 bytes, .* is 1000",
        ),
        (lambda: web.Response(status=302, headers={"Location": "/elsewhere"}), "302"),
        (lambda: web.Response(status=422, text='{"detail": "no field"}'), "422: .*no field"),
    ],
)
async def test_answers_that_are_of_no_use(client: RayClient, secured: FakeDashboard, answer: Any, reason: str) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=500, text="no detail") if answer is web.Response else answer()

    secured.deploy("app", "/app", handler)
    limit = 1000 if "1000" in reason else 1024 * 1024
    with pytest.raises(RayServeBadAnswer, match=reason):
        await ServeRoute(client, "app", "/").call(**QUICKLY, max_answer_bytes=limit)
    assert len(secured.asked("GET", "/app")) == 1


async def test_an_answer_in_chunks_is_read_up_to_the_limit(client: RayClient, secured: FakeDashboard) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)

    async def bomb(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(bytes(50_000_000)), headers={"Content-Encoding": "gzip"})

    for handler in (endless, bomb):
        secured.deploy("app", "/app", handler)
        with pytest.raises(RayServeBadAnswer, match=r"the answer has more than 1000000 bytes, .* is 1000000"):
            await ServeRoute(client, "app", "/").call(**QUICKLY, max_answer_bytes=1_000_000)


@pytest.mark.parametrize(("text", "value"), [("", None), ("null", None), ("[]", []), ('"é"', "é"), ("0", 0)])
async def test_answers(client: RayClient, secured: FakeDashboard, text: str, value: Any) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=text)

    secured.deploy("app", "/app", handler)
    assert await ServeRoute(client, "app", "/").call(**QUICKLY, max_answer_bytes=max(len(text.encode()), 1)) == value


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"method": "PATCH"}, "method"),
        ({"headers": {"X": "a\r\nb"}}, "headers"),
        ({"headers": {"X": 1}}, "headers"),
        ({"method": "POST", "data": {"a": {1}}}, "data"),
        ({"method": "POST", "data": float("nan")}, "data"),
        ({"request_timeout": 0}, "request_timeout"),
    ],
)
async def test_requests_that_cannot_be_sent(
    client: RayClient, secured: FakeDashboard, request_: dict[str, Any], field: str
) -> None:
    secured.deploy("app", "/app", echo)
    with pytest.raises(RayConfigError) as caught:
        await ServeRoute(client, "app", "/").call(**QUICKLY, **request_)
    assert caught.value.field == field
    assert secured.asked("GET", "/app") == secured.asked("POST", "/app") == []


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_at_capacity_is_repeated(client: RayClient, secured: FakeDashboard, method: str) -> None:
    secured.deploy("app", "/app", {"a": 1})
    secured.fail(503, path="/app", times=2)
    assert await ServeRoute(client, "app", "/").call(**QUICKLY, method=method) == {"a": 1}


async def test_at_capacity_for_ever_has_an_end(client: RayClient, secured: FakeDashboard) -> None:
    secured.deploy("app", "/app", {"a": 1})
    secured.fail(503, path="/app", times=99, text="full")
    with pytest.raises(RayServeBadAnswer, match=r"503: full"):
        await ServeRoute(client, "app", "/").call(poll_interval=0.1, timeout=0.5)


@pytest.mark.parametrize("fault", ["close", "cut", "hang"])
async def test_a_broken_call_is_repeated_only_if_that_is_harmless(
    client: RayClient, secured: FakeDashboard, fault: Any
) -> None:
    secured.deploy("app", "/app", {"a": 1})
    secured.fail(fault, path="/app", times=2 if fault == "close" else 1)
    assert await ServeRoute(client, "app", "/").call(**QUICKLY, request_timeout=0.5) == {"a": 1}
    secured.fail(fault, path="/app", method="POST")
    with pytest.raises(RayClusterUnavailable):
        await ServeRoute(client, "app", "/").call(**QUICKLY, request_timeout=0.5, method="POST")
    assert len(secured.asked("POST", "/app")) == 1


@pytest.mark.parametrize("status", [404, 408])
async def test_a_408_or_404_counts_once_the_application_runs(
    client: RayClient, secured: FakeDashboard, status: int
) -> None:
    app = secured.deploy("app", "/app", {"a": 1})
    secured.fail(status, path="/app", text="timed out")
    with pytest.raises(RayServeBadAnswer, match=rf"{status}: timed out"):
        await ServeRoute(client, "app", "/").call(**QUICKLY)

    async def restarting(_: web.Request) -> web.Response:
        app.status, app.answer = "DEPLOYING", {"a": 2}
        soon(0.3, lambda: setattr(app, "status", "RUNNING"))
        return web.Response(status=status)

    app.answer = restarting
    assert await ServeRoute(client, "app", "/").call(**QUICKLY) == {"a": 2}


async def test_a_proxy_that_is_not_there_yet_is_waited_for(secured: FakeDashboard) -> None:
    secured.deploy("app", "/app", {"a": 1})
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    config = ClusterConfig(url=secured.url, token=TOKEN, serve_url=f"http://127.0.0.1:{port}")
    async with RayClient(config) as client:
        with pytest.raises(RayServeNotReady, match=r"no connection"):
            await ServeRoute(client, "app", "/").call(poll_interval=0.1, timeout=0.3)


async def test_a_call_can_be_cancelled(client: RayClient, secured: FakeDashboard) -> None:
    secured.deploy("app", "/app", echo)
    secured.fail("hang", path="/app")
    task = asyncio.create_task(ServeRoute(client, "app", "/").call(**QUICKLY))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)


async def test_another_cluster_at_the_same_port_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "PROXIES_LEARN_SECONDS", 1.0)
    with FakeDashboard(shared_serve_port=0) as mine, FakeDashboard(shared_serve_port=mine.serve_port) as other:
        assert mine.serve_url == other.serve_url
        mine.deploy("app", "/app", {"mine": True})
        other.deploy("foreign", "/foreign", {"mine": False})
        async with RayClient(ClusterConfig(url=mine.url, serve_url=mine.serve_url)) as client:
            with pytest.raises(RayServeError, match=r"another Serve listens there as well; .* a Serve port of its own"):
                await ServeRoute(client, "app", "/").call(poll_interval=0.2, timeout=30)
        assert not [each for each in other.requests if each.path.startswith("/app")]


async def test_proxies_that_learn_of_a_route_one_after_the_other_are_waited_for() -> None:
    with FakeDashboard(shared_serve_port=0) as first, FakeDashboard(shared_serve_port=first.serve_port) as second:
        first.deploy("app", "/app", {"answer": 1})
        soon(1, lambda: second.deploy("app", "/app", {"answer": 1}))
        async with RayClient(ClusterConfig(url=first.url, serve_url=first.serve_url)) as client:
            started = time.monotonic()
            assert await ServeRoute(client, "app", "/").call(**QUICKLY) == {"answer": 1}
        assert time.monotonic() - started >= 0.9
