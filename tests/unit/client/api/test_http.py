from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import (
    RayAuthError,
    RayClusterUnavailable,
    RayNotADashboard,
    RayNotFound,
    RayRequestError,
    RayRequestRefused,
)
from tests.fake_dashboard import FakeDashboard

pytestmark = pytest.mark.anyio

TOKEN = "t0ken-of-the-cluster"


@pytest.fixture
def secured() -> Iterator[FakeDashboard]:
    with FakeDashboard(token=TOKEN) as dashboard:
        yield dashboard


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        yield port


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue is full, so that no connection comes about."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        socket.socket() as first,
        socket.socket() as second,
    ):
        port: int = listener.getsockname()[1]
        first.connect(("127.0.0.1", port))
        second.setblocking(False)
        second.connect_ex(("127.0.0.1", port))
        yield port


def answering_once(*answer: bytes) -> int:
    """A port that answers the first request with these bytes, piece by piece."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        # Whoever has heard enough hangs up.
        with listener, listener.accept()[0] as connection, suppress(ConnectionError):
            connection.recv(65536)
            for piece in answer:
                connection.sendall(piece)
                time.sleep(0.1)

    threading.Thread(target=serve, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


async def version(config: ClusterConfig) -> str:
    async with RayClient(config) as client:
        return (await client.cluster.version()).ray_version


async def test_a_missing_and_a_wrong_token_are_told_apart(secured: FakeDashboard) -> None:
    assert await version(ClusterConfig(url=secured.url, token=TOKEN)) == "2.60.0"
    with pytest.raises(RayAuthError, match=r"401.*password.*Missing") as missing:
        await version(ClusterConfig(url=secured.url))
    with pytest.raises(RayAuthError, match=r"403.*password.*Invalid") as wrong:
        await version(ClusterConfig(url=secured.url, token="wr0ng-token"))
    assert (missing.value.status, wrong.value.status) == (401, 403)
    assert "wr0ng-token" not in str(wrong.value)
    assert not missing.value.transient


async def test_the_token_makes_way_for_a_proxys_own_header(secured: FakeDashboard) -> None:
    config = ClusterConfig(url=secured.url, token=TOKEN, auth_headers={"authorization": "Basic proxy"})
    with pytest.raises(RayAuthError):
        await version(config)
    sent = secured.requests[-1].headers
    assert (sent["Authorization"], sent["X-Ray-Authorization"]) == ("Basic proxy", f"Bearer {TOKEN}")


async def test_headers_and_prefix_reach_the_dashboard() -> None:
    with FakeDashboard(prefix="/ray/a") as fake:
        assert (
            await version(ClusterConfig(url=fake.url, auth_headers={"X-Tenant": "a", "user-agent": "ours"})) == "2.60.0"
        )
        (request,) = fake.requests
        assert (request.path, request.headers["X-Tenant"]) == ("/ray/a/api/version", "a")
        assert request.headers.getall("User-Agent") == ["ours"]  # type: ignore[attr-defined]
        with pytest.raises(RayNotADashboard):
            await version(ClusterConfig(url=fake.url.removesuffix("/a")))


async def test_we_do_not_look_like_a_browser(client: RayClient, fake: FakeDashboard) -> None:
    await client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1"))
    (request,) = fake.asked("POST", "/api/jobs/")
    assert not request.headers["User-Agent"].startswith("Mozilla")
    assert not {"Origin", "Referer", "Cookie"} & set(request.headers)


async def test_the_environment_changes_nothing(
    secured: FakeDashboard, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, fake.url)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another-token")
    monkeypatch.setenv("RAY_JOB_HEADERS", json.dumps({"X-From": "environment"}))
    assert await version(ClusterConfig(url=secured.url, token=TOKEN)) == "2.60.0"
    with pytest.raises(RayAuthError, match=r"401"):
        await version(ClusterConfig(url=secured.url))
    assert fake.requests == []
    assert not any("X-From" in request.headers for request in secured.requests)


async def test_a_redirect_is_an_error_and_takes_nothing_along(fake: FakeDashboard) -> None:
    with FakeDashboard() as login:
        fake.fail(302, times=3, headers={"Location": f"{login.url}/login"})
        config = ClusterConfig(url=fake.url, token=TOKEN, auth_headers={"X-Key": "k3y"})
        with pytest.raises(RayRequestRefused, match=r"302.*/login.*login page") as caught:
            await version(config)
        assert not caught.value.transient
        assert login.requests == []


@pytest.mark.parametrize(
    ("ask", "path"),
    [
        (lambda client: client.cluster.version(), "/api/version"),
        (lambda client: client.jobs.list(), "/api/jobs/"),
        (lambda client: client.jobs.stop("j1"), "/api/jobs/j1/stop"),
        (lambda client: client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1")), "/api/jobs/"),
        (lambda client: client.serve.details(), "/api/serve/applications/"),
    ],
)
async def test_a_redirect_to_https_names_the_field_to_change(
    client: RayClient, fake: FakeDashboard, ask: Callable[[RayClient], Awaitable[Any]], path: str
) -> None:
    fake.fail(301, headers={"Location": f"https://user:s3cret@ray.example{path}?token=s3cret"})
    there = rf"301: redirected to https://ray\.example{path}, and redirects are not followed"
    advice = f"in the host field of the connection, write https://ray.example instead of {fake.url}"
    with pytest.raises(RayRequestRefused, match=f"{there}; {advice}$"):
        await ask(client)


async def test_of_a_page_the_title_is_the_reason(client: RayClient, fake: FakeDashboard) -> None:
    """As when plain HTTP reaches an HTTPS port of nginx."""
    title = "400 The plain HTTP request was sent to HTTPS port"
    fake.fail(
        400, text=f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<hr>nginx\r\n</body>\r\n</html>\r\n"
    )
    with pytest.raises(RayRequestRefused, match=f"400: {title}$"):
        await client.jobs.get("j1")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_statuses_that_pass(client: RayClient, fake: FakeDashboard, status: int) -> None:
    fake.fail(status, text="Traceback (most recent call last):\n  File x\nOSError: the last line")
    with pytest.raises(RayClusterUnavailable, match=f"{status}: OSError: the last line$") as caught:
        await client.jobs.get("j1")
    assert (caught.value.transient, caught.value.status, caught.value.never_sent) == (True, status, False)


@pytest.mark.parametrize("status", [400, 405, 409, 413, 422, 501])
async def test_statuses_that_stay(client: RayClient, fake: FakeDashboard, status: int) -> None:
    fake.fail(status, text="")
    with pytest.raises(RayRequestRefused, match=f"{status}: no reason given$") as caught:
        await client.jobs.get("j1")
    assert (caught.value.transient, caught.value.status) == (False, status)


async def test_an_unknown_job_is_not_found(client: RayClient) -> None:
    with pytest.raises(RayNotFound, match=r"Job nobody does not exist"):
        await client.jobs.get("nobody")


@pytest.mark.parametrize("fault", ["close", "cut"])
async def test_broken_connections_pass(client: RayClient, fake: FakeDashboard, fault: Any) -> None:
    fake.fail(fault, times=3)
    with pytest.raises(RayClusterUnavailable) as caught:
        await client.jobs.list()
    assert not caught.value.never_sent


async def test_a_refused_connection_was_never_sent(silent_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(RayClusterUnavailable, match=r"no connection") as caught:
        await version(ClusterConfig(url=f"http://127.0.0.1:{port}"))
    assert caught.value.never_sent


async def test_an_unknown_host_is_named() -> None:
    with pytest.raises(RayClusterUnavailable, match=r"no connection.*ray\.invalid"):
        await version(ClusterConfig(url="http://ray.invalid:8265"))


async def test_a_port_that_never_answers(silent_port: int) -> None:
    config = ClusterConfig(url=f"http://127.0.0.1:{silent_port}", connect_timeout=5, read_timeout=0.3)
    started = time.monotonic()
    with pytest.raises(RayClusterUnavailable, match=r"no answer in time") as caught:
        await version(config)
    assert time.monotonic() - started < 2
    assert not caught.value.never_sent


async def test_a_port_that_takes_no_connection(full_port: int) -> None:
    config = ClusterConfig(url=f"http://127.0.0.1:{full_port}", connect_timeout=0.3, read_timeout=30)
    started = time.monotonic()
    with pytest.raises(RayClusterUnavailable, match=r"no connection") as caught:
        await version(config)
    assert time.monotonic() - started < 2
    assert caught.value.never_sent


async def test_an_upload_to_a_port_that_never_answers_ends(silent_port: int) -> None:
    async with RayClient(ClusterConfig(url=f"http://127.0.0.1:{silent_port}", read_timeout=0.3)) as client:
        with pytest.raises(RayClusterUnavailable, match=r"no answer in time"):
            await client.cluster.put_package("gcs://a.zip", b"x" * 1000)


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x04\x00\x3f\xff\xff",
        b"-ERR unknown command 'GET'\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
    ids=["gRPC", "Redis", "SSH"],
)
async def test_other_protocols_are_no_dashboard(answer: bytes) -> None:
    with pytest.raises(RayNotADashboard) as caught:
        await version(ClusterConfig(url=f"http://127.0.0.1:{answering_once(answer)}"))
    assert not caught.value.transient


@pytest.mark.parametrize(
    "body",
    ["<html>Welcome</html>", "[]", "null", '"2.60"', "{}", '{"ray_version": 3}', "[" * 100_000, '{"ray_version":'],
    ids=["html", "list", "null", "text", "empty", "number", "deep", "half"],
)
async def test_other_pages_are_no_dashboard(body: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with pytest.raises(RayNotADashboard):
        await version(ClusterConfig(url=f"http://127.0.0.1:{answering_once((head + body).encode())}"))


async def test_a_reason_that_comes_in_pieces_is_read_to_its_end() -> None:
    head, reason = b"Traceback:\n", b"RuntimeError: Request failed with status code 400: Traceback:\nValueError: no\n"
    length = len(head + reason)
    first = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % length
    with pytest.raises(RayRequestRefused, match="ValueError: no"):
        await version(ClusterConfig(url=f"http://127.0.0.1:{answering_once(first + head, reason)}"))


async def test_a_status_counts_though_its_reason_is_cut_off() -> None:
    answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 50\r\nConnection: close\r\n\r\nno token"
    with pytest.raises(RayAuthError, match="no token"):
        await version(ClusterConfig(url=f"http://127.0.0.1:{answering_once(answer)}"))


async def test_a_reason_without_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "REASON_SECONDS", 0.5)
    head = b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n"
    started = time.monotonic()
    with pytest.raises(RayClusterUnavailable, match="502: dot"):
        await version(ClusterConfig(url=f"http://127.0.0.1:{answering_once(head + b'dot', *[b'dot'] * 100)}"))
    assert time.monotonic() - started < 5


# What json still gets along with, and whoever walks over it does not, depends on the release of Python.
async def test_a_record_that_is_nested_too_deep_is_an_error_of_ours(client: RayClient, fake: FakeDashboard) -> None:
    depth = 940 if sys.version_info < (3, 12) else 1100
    fake.fail(200, text=r'{"ray_version": "\ud83d", "more": %s}' % ("[" * depth + "]" * depth))
    with pytest.raises(RayNotADashboard):
        await client.cluster.version()


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.jobs.get("j1"),
        lambda client: client.jobs.list(),
        lambda client: client.jobs.stop("j1"),
        lambda client: client.cluster.nodes(),
        lambda client: client.cluster.status(),
        lambda client: client.serve.details(),
        lambda client: client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1")),
    ],
)
@pytest.mark.parametrize("body", ['["x"]', '{"detail": "x"}', '"x"', "7"])
async def test_json_that_is_not_rays_is_an_error_of_ours(
    client: RayClient, fake: FakeDashboard, ask: Callable[[RayClient], Awaitable[Any]], body: str
) -> None:
    fake.fail(200, text=body)
    if body == '{"detail": "x"}' and "serve" in ask.__code__.co_names:
        assert (await ask(client)).applications == {}
        return
    with pytest.raises(RayNotADashboard):
        await ask(client)


async def test_no_secret_in_errors_and_logs(
    secured: FakeDashboard, silent_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    for url in (secured.url, f"http://127.0.0.1:{silent_port}"):
        config = ClusterConfig(url=url, token="wr0ng-token", auth_headers={"X-Key": "k3y"}, read_timeout=0.2)
        spec = JobSpec(entrypoint="true", submission_id="j1", runtime_env={"env_vars": {"A": "env-s3cret"}})
        async with RayClient(config) as client:
            for ask in (client.cluster.version(), client.jobs.submit(spec), client.jobs.list()):
                with pytest.raises(RayRequestError) as caught:
                    await ask
                error: BaseException | None = caught.value
                while error is not None:
                    said += [str(error), repr(error)]
                    error = error.__cause__ or error.__context__
            said += [repr(client), repr(config), repr(spec)]
    for secret in ("wr0ng-token", "k3y", "env-s3cret"):
        assert not any(secret in text for text in [*said, caplog.text])


async def test_the_client_is_used_inside_its_block_only(fake: FakeDashboard) -> None:
    client = RayClient(ClusterConfig(url=fake.url))
    with pytest.raises(RuntimeError, match=r"async with"):
        await client.cluster.version()
    for _ in range(2):
        async with client:
            assert (await client.cluster.version()).at_least(2, 60)


async def test_more_than_a_hundred_nodes_are_listed(client: RayClient, fake: FakeDashboard) -> None:
    fake.nodes *= 150
    assert len(await client.cluster.nodes()) == 150


@pytest.mark.parametrize("name", ["2.60.0", "2.54.1rc1", "3.0.0.dev0", "2.100.0+cu12", "nightly", "9" * 5000 + ".1"])
async def test_new_versions_are_recognised(client: RayClient, fake: FakeDashboard, name: str) -> None:
    fake.ray_version = name
    assert (await client.cluster.version()).at_least(2, 54)


async def test_old_versions_are_recognised(client: RayClient, fake: FakeDashboard) -> None:
    fake.ray_version = "2.9.3"
    assert not (await client.cluster.version()).at_least(2, 54)


async def test_many_requests_at_once(client: RayClient, fake: FakeDashboard) -> None:
    await asyncio.gather(*(client.cluster.version() for _ in range(200)))
    assert len(fake.requests) == 200
