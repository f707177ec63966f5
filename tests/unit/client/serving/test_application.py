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
    RayNotADashboard,
    RayRequestRefused,
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
        ("/app", "app", "/", "/app/"),
        ("/app", "app", "", "/app"),
        ("/app", "app", "?x=1", "/app/?x=1"),
        ("/über uns?", "app", "/sub", "/%C3%BCber%20uns%3F/sub"),
        ("/über", None, "/%C3%BCber/sub", "/%C3%BCber/sub"),
        ("/app", None, "/app", "/app"),
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


async def test_no_route_prefix_moves_a_call(secured: FakeDashboard, fake: FakeDashboard) -> None:
    """A job may choose any route prefix, and calls carry credentials."""
    fake.deploy("app", "/", echo)
    there = fake.serve_url.removeprefix("http://")
    for base, prefix in [
        (None, f"@{there}"),
        (None, f"@{there}/app"),
        (secured.serve_url, f"@{there}"),
        (secured.serve_url, ".example"),
        (secured.serve_url, "0"),
        (f"{secured.serve_url}/team", "/../other"),
        (f"{secured.serve_url}/team", "/.."),
    ]:
        secured.applications.clear()
        secured.deploy("app", prefix, echo)
        config = ClusterConfig(url=secured.url, token=TOKEN, serve_url=base, serve_token="s3rve")
        async with RayClient(config) as client:
            with pytest.raises(RayServeError, match=r"application 'app' has a route prefix that cannot be called: "):
                await ServeRoute(client, "app", "/").call(**QUICKLY)
    assert not [each for each in [*secured.requests, *fake.requests] if each.server == "serve"]


@pytest.mark.parametrize("path", ["/../other", "/a/../../other", "/%2e%2e/other", ".."])
async def test_no_path_leaves_its_application(client: RayClient, secured: FakeDashboard, path: str) -> None:
    secured.deploy("app", "/app", echo)
    with pytest.raises(RayConfigError, match=r"^path: got '.*'; expected a path below http://127\.0\.0\.1:\d+/app"):
        await ServeRoute(client, "app", path).call(**QUICKLY)


@pytest.mark.parametrize("root_path", ["/base", "@other:80", "base"])
async def test_a_root_path_moves_nothing(client: RayClient, secured: FakeDashboard, root_path: str) -> None:
    """It is what a proxy in front of Serve strips; Ray's own proxy has no routes below it."""
    secured.serve_options["root_path"] = root_path
    secured.deploy("app", "/app", echo)
    assert (await ServeRoute(client, "app", "/sub").call(**QUICKLY))["path"] == "/app/sub"


async def test_the_address_of_a_serve_with_tls_must_be_given(client: RayClient, secured: FakeDashboard) -> None:
    secured.serve_options["ssl_certfile"] = "/etc/tls/serve.pem"
    secured.deploy("app", "/app", echo)
    with pytest.raises(RayConfigError, match=r"^serve_url: got nothing; expected the https address of Serve"):
        await ServeRoute(client, "app", "/").call(**QUICKLY)


async def fastapi(request: web.Request) -> web.Response:
    """A FastAPI application with a route "/": it redirects when the slash at the end is missing."""
    if request.path == "/bar/":
        return web.json_response({"method": request.method})
    location = f"http://user:s3cret@{request.host}{request.path}/?{request.query_string}"
    return web.Response(status=307, headers={"Location": location})


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_slash_at_the_end_is_kept(client: RayClient, secured: FakeDashboard, method: str) -> None:
    secured.deploy("app", "/bar", fastapi)
    assert await ServeRoute(client, "app", "/").call(**QUICKLY, method=method) == {"method": method}
    assert await ServeRoute(client, None, "/bar/").call(**QUICKLY, method=method) == {"method": method}
    advice = r"write the path with the slash at its end"
    for application, path in [("app", ""), (None, "/bar")]:
        with pytest.raises(RayServeBadAnswer, match=rf"307: redirected to http://[^/@]+/bar/, .*; {advice}$") as caught:
            await ServeRoute(client, application, path).call(**QUICKLY, method=method)
        assert "s3cret" not in str(caught.value)


async def test_a_redirect_of_serve_to_https_names_its_field(secured: FakeDashboard) -> None:
    secured.deploy("app", "/app", echo)
    config = ClusterConfig(url=secured.url, token=TOKEN, serve_url=secured.serve_url, serve_token="s3rve")
    advice = rf"in the serve_url field of the connection, write https://serve\.lab instead of {secured.serve_url}$"
    async with RayClient(config) as client:
        secured.fail(308, path="/-/routes", headers={"Location": "https://serve.lab/-/routes"})
        with pytest.raises(RayRequestRefused, match=rf"308: redirected to https://serve\.lab/-/routes, .*{advice}"):
            await ServeRoute(client, "app", "/sub").wait(**QUICKLY)
        secured.fail(308, path="/app", headers={"Location": "https://serve.lab/app/sub"})
        with pytest.raises(RayServeBadAnswer, match=rf"308: redirected to https://serve\.lab/app/sub, .*{advice}"):
            await ServeRoute(client, "app", "/sub").call(**QUICKLY)


async def test_the_wait_says_what_was_missing(client: RayClient, secured: FakeDashboard) -> None:
    async def missing(application: str | None, path: str = "/") -> str:
        with pytest.raises(RayServeNotReady, match="did not answer in time") as caught:
            await ServeRoute(client, application, path).wait(poll_interval=0.1, timeout=0.2)
        return str(caught.value)

    assert "no such application" in await missing("app")
    assert "Serve is not running" in await missing(None, "/app")
    app = secured.deploy("app", "/app", echo, status="DEPLOYING", message="building")
    assert "status=DEPLOYING building" in await missing("app")
    app.status, app.route_prefix, app.message = "RUNNING", None, ""
    assert (await missing("app")).endswith("status=RUNNING without a route prefix")
    app.route_prefix, app.routed = "/app", False
    assert "has the routes []" in await missing("app")
    app.routed = True
    assert "has the routes ['/app']" in await missing(None, "/application")
    secured.fail(503, path="/api/serve", times=99, text="starting")
    assert "503: starting" in await missing("app")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("", "/"), "application"),
        ((["app"], "/"), "application"),
        (("app", None), "path"),
        (("app", "/sub#part"), "path"),
        (("app", "/", ""), "submission_id"),
        (("app", "/", 7), "submission_id"),
    ],
)
async def test_what_names_no_route_is_refused(client: RayClient, arguments: Any, field: str) -> None:
    with pytest.raises(RayConfigError) as caught:
        ServeRoute(client, *arguments)
    assert caught.value.field == field


async def test_long_texts_of_a_cluster_are_cut(client: RayClient, secured: FakeDashboard) -> None:
    for number in range(1000):
        secured.deploy(f"other{number}", f"/other{number}", {})
    app = secured.deploy("app", "/app", {}, routed=False)
    with pytest.raises(RayServeNotReady, match=r"'/other0', .* and 980 more$") as not_ready:
        await ServeRoute(client, "app", "/").wait(poll_interval=0.1, timeout=0.2)
    assert len(str(not_ready.value)) < 1000
    app.status, app.message = "DEPLOY_FAILED", "x" * 10**6 + "the reason"
    with pytest.raises(RayServeDeployFailed, match="the reason$") as failed:
        await ServeRoute(client, "app", "/").wait(**QUICKLY)
    assert len(str(failed.value)) < 21_000


async def test_an_ingress_that_loses_its_dashboard_for_a_moment(client: RayClient, secured: FakeDashboard) -> None:
    app = secured.deploy("app", "/app", {}, status="DEPLOYING")
    soon(0.5, lambda: secured.fail(404, path="/api/serve", text="default backend"))
    soon(1.5, lambda: secured.fail(200, path="/api/serve", text="<html>back soon"))
    soon(2.5, lambda: setattr(app, "status", "RUNNING"))
    assert await ServeRoute(client, "app", "/").wait(**QUICKLY) == f"{secured.serve_url}/app/"
    assert all(fault.times == 0 for fault in secured.faults)


async def test_what_never_was_a_dashboard_ends_the_wait(client: RayClient, secured: FakeDashboard) -> None:
    secured.fail(200, path="/api/serve", text="<html>hello")
    with pytest.raises(RayNotADashboard):
        await ServeRoute(client, "app", "/").wait(**QUICKLY)


async def test_a_cluster_without_serve_ends_the_wait(client: RayClient, secured: FakeDashboard) -> None:
    secured.fail(
        501, path="/api/serve", text='Serve dependencies are not installed. Please run `pip install "ray[serve]"`.'
    )
    with pytest.raises(RayRequestRefused, match=r"501: Serve dependencies are not installed"):
        await ServeRoute(client, "app", "/").wait(**QUICKLY)


@pytest.mark.parametrize("path", ["/api/serve", "/-/routes", "/api/jobs/j1"])
async def test_a_silent_server_does_not_delay_the_end_of_a_wait(secured: FakeDashboard, path: str) -> None:
    secured.deploy("app", "/app", {})
    async with RayClient(ClusterConfig(url=secured.url, token=TOKEN)) as client:
        await client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1"))
        secured.fail("hang", path=path, times=100)
        started = time.monotonic()
        with pytest.raises(RayServeNotReady, match="no answer in time"):
            await ServeRoute(client, "app", "/", "j1").wait(poll_interval=0.1, timeout=1.5)
        assert time.monotonic() - started < 1.5 + pacing.SERVE_LAST_LOOK_SECONDS + 0.5


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
        ({"method": None}, "method"),
        ({"max_answer_bytes": "1 MB"}, "max_answer_bytes"),
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


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_at_capacity_is_repeated(client: RayClient, secured: FakeDashboard, method: str, status: int) -> None:
    secured.deploy("app", "/app", {"a": 1})
    secured.fail(status, path="/app", times=2)
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


async def test_who_else_listens_is_found_out_once_per_call(client: RayClient, secured: FakeDashboard) -> None:
    secured.deploy("app", "/app", {"a": 1})
    await ServeRoute(client, "app", "/").wait(**QUICKLY)
    assert len(secured.asked("GET", "/-/routes")) == 1
    secured.fail(503, path="/app", times=3)
    assert await ServeRoute(client, "app", "/").call(**QUICKLY) == {"a": 1}
    assert len(secured.asked("GET", "/-/routes")) == 1 + pacing.ROUTE_LOOKS + 4


async def test_proxies_that_learn_of_a_route_one_after_the_other_are_waited_for() -> None:
    with FakeDashboard(shared_serve_port=0) as first, FakeDashboard(shared_serve_port=first.serve_port) as second:
        first.deploy("app", "/app", {"answer": 1})
        soon(1, lambda: second.deploy("app", "/app", {"answer": 1}))
        async with RayClient(ClusterConfig(url=first.url, serve_url=first.serve_url)) as client:
            started = time.monotonic()
            assert await ServeRoute(client, "app", "/").call(**QUICKLY) == {"answer": 1}
        assert time.monotonic() - started >= 0.9
