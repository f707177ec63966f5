from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import (
    RayAnswerTooLarge,
    RayAuthError,
    RayClusterUnavailable,
    RayConfigError,
    RayError,
    RayNotADashboard,
    RayNotFound,
    RayRequestError,
    RayRequestRefused,
)
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.fake_dashboard.state import Job

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
        # The client may hang up early.
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


async def test_a_record_that_is_nested_too_deep_is_an_error_of_ours(client: RayClient, fake: FakeDashboard) -> None:
    fake.fail(200, text=r'{"ray_version": "\ud83d", "more": %s}' % ("[" * 100_000 + "]" * 100_000))
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


@pytest.mark.parametrize("status", [400, 401, 500, 503])
async def test_what_a_gateway_repeats_of_the_credentials_is_hidden(fake: FakeDashboard, status: int) -> None:
    secrets = {"X-Key": "1000.22", "X-Own": "own-secret"}
    config = ClusterConfig(url=fake.url, token="justletters", auth_headers=secrets)
    said = "for user=a password=hunter2x got Authorization: Bearer justletters, X-Key: 1000.22, X-Own: own-secret"
    fake.fail(status, text=said, times=9)
    sent = {**secrets, "Authorization": "Bearer justletters"}
    async with RayClient(config) as client:
        for ask in (client.cluster.version(), client.serve.call(f"{fake.url}/app", headers=sent)):
            with pytest.raises(RayError, match="for user=a password=") as caught:
                await ask
            assert not any(secret in str(caught.value) for secret in ("justletters", "hunter2x", *secrets.values()))


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


def answer(body: bytes, *headers: str, length: int | None = None, status: str = "200 OK") -> bytes:
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {size}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def test_no_compression_is_asked_for(client: RayClient, fake: FakeDashboard) -> None:
    await client.cluster.version()
    assert fake.requests[0].headers["Accept-Encoding"] == "identity"


async def test_a_compressed_answer_is_read_all_the_same() -> None:
    body = gzip.compress(b'{"ray_version": "2.60.0"}')
    config = ClusterConfig(url=f"http://127.0.0.1:{answering_once(answer(body, 'Content-Encoding: gzip'))}")
    assert await version(config) == "2.60.0"


@pytest.mark.parametrize("times", [1, 2])
async def test_an_answer_that_unpacks_to_a_gigabyte_is_not_unpacked(times: int) -> None:
    body = gzip.compress(b"[" + b" " * 2**26 + b"]")
    if times == 2:
        body = gzip.compress(body)
    port = answering_once(answer(body, "Content-Encoding: " + ", ".join(["gzip"] * times)))
    tracemalloc.start()
    try:
        with pytest.raises((RayAnswerTooLarge, RayNotADashboard)):
            await version(ClusterConfig(url=f"http://127.0.0.1:{port}"))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


async def test_an_answer_that_announces_too_much_is_not_read() -> None:
    port = answering_once(answer(b"{", length=2**50))
    with pytest.raises(RayAnswerTooLarge, match=f"the answer has {2**50} bytes, the limit is 1048576"):
        await version(ClusterConfig(url=f"http://127.0.0.1:{port}"))


@pytest.mark.parametrize(
    ("ask", "limit"),
    [
        (lambda client: client.jobs.get("j1"), "RECORD_BYTES"),
        (lambda client: client.jobs.list(), "LIST_BYTES"),
        (lambda client: client.jobs.active(), "LIST_BYTES"),
        (lambda client: client.jobs.stop("j1"), "ANSWER_BYTES"),
        (lambda client: client.jobs.delete("j1"), "ANSWER_BYTES"),
        (lambda client: client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1")), "ANSWER_BYTES"),
        (lambda client: client.cluster.version(), "ANSWER_BYTES"),
        (lambda client: client.cluster.authentication_mode(), "ANSWER_BYTES"),
        (lambda client: client.cluster.python_version(), "ANSWER_BYTES"),
        (lambda client: client.cluster.nodes(), "NODES_BYTES"),
        (lambda client: client.cluster.status(), "USAGE_BYTES"),
        (lambda client: client.cluster.has_package("gcs://a.zip"), "ANSWER_BYTES"),
        (lambda client: client.cluster.put_package("gcs://a.zip", b"x"), "ANSWER_BYTES"),
        (lambda client: client.serve.details(), "SERVE_BYTES"),
        (lambda client: client.serve.routes(client.config.url), "ANSWER_BYTES"),
    ],
)
async def test_every_route_has_a_limit(
    client: RayClient,
    fake: FakeDashboard,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[RayClient], Awaitable[Any]],
    limit: str,
) -> None:
    monkeypatch.setattr(pacing, limit, 1000)
    fake.fail(200, text="x" * 1001)
    with pytest.raises(RayAnswerTooLarge, match="the limit is 1000") as caught:
        await ask(client)
    assert not caught.value.transient


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ("RuntimeError: Request failed with status code 413: Request Entity Too Large.", True),
        ("aiohttp.web_exceptions.HTTPRequestEntityTooLarge: Request Entity Too Large", True),
        ("RuntimeError: Request failed with status code 500: Traceback\nHTTPRequestEntityTooLarge: Maximum ...", True),
        ("RuntimeError: Request failed with status code 500: aiohttp.web_exceptions.HTTPBadRequest: Bad", True),
        ("413: Request Entity Too Large", True),
        ("413, message='Content Too Large'", True),
        ("agent answered 422 Unprocessable Entity", True),
        ("ClientResponseError: 405, message='Method Not Allowed', url=...", True),
        ("agent: status=400", True),
        ("RuntimeError: Request failed with status code 429: Too Many Requests.", False),
        ("HTTPTooManyRequests", False),
        ("HTTPRequestTimeout: 408", False),
        ("RuntimeError: Request failed with status code 500: OSError: disk full", False),
        ("  File x, line 413, in submit_job\nOSError: disk full", False),
        ("HTTPServiceUnavailable", False),
        ("HTTPConnectionPool(host='a', port=410): Max retries exceeded", False),
        ("No available agent to submit job, please try again later.", False),
    ],
)
async def test_a_refusal_within_a_500_is_one(client: RayClient, fake: FakeDashboard, said: str, refused: bool) -> None:
    fake.fail(500, text=f"Traceback (most recent call last):\n{said}\n")
    with pytest.raises(RayRequestRefused if refused else RayClusterUnavailable):
        await client.jobs.get("j1")


@pytest.mark.parametrize(
    "name", ["train:2026-11", "etl job 7", "größe", "a+b", "50%", "a?b", "a#b", "%2e", "a;b=c,d", "~", "a\nb", "..."]
)
async def test_jobs_of_others_are_found_whatever_they_are_called(
    client: RayClient, fake: FakeDashboard, name: str
) -> None:
    body = {"entrypoint": "sleep 60", "submission_id": name}
    fake.jobs[name] = Job(body, Outcome(ends_after=None))
    assert (await client.jobs.get(name)).submission_id == name
    assert await client.jobs.stop(name)
    assert (await client.jobs.get(name)).status == "STOPPED"
    await client.jobs.delete(name)
    assert not fake.jobs


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "\ud83d", "a" * 256, None])
async def test_what_can_be_no_id_is_not_asked_for(client: RayClient, fake: FakeDashboard, name: Any) -> None:
    with pytest.raises(RayConfigError, match="submission_id"):
        await client.jobs.get(name)
    assert fake.requests == []


async def test_what_a_server_says_can_be_stored(client: RayClient) -> None:
    for head in (
        b"HTTP/1.1 200 \xff\xfe\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /\xff\r\nContent-Length: 0\r\n\r\n",
    ):
        with pytest.raises(RayRequestError) as caught:
            await version(ClusterConfig(url=f"http://127.0.0.1:{answering_once(head)}"))
        str(caught.value).encode()


@pytest.mark.parametrize("route", ["active", "ended", "nodes", "list"])
async def test_more_rows_than_ray_sends_are_refused(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    monkeypatch.setattr(pacing, "LIST_RECORDS", 10_000)
    ask: dict[str, Callable[[], Awaitable[Any]]] = {
        "active": client.jobs.active,
        "ended": lambda: client.jobs.ended(10_000),
        "nodes": client.cluster.nodes,
        "list": client.jobs.list,
    }
    found = ",".join(['{"status": "", "node_id": "", "state": ""}'] * 10_001)
    fake.fail(200, text=f"[{found}]" if route == "list" else f'{{"data": {{"result": {{"result": [{found}]}}}}}}')
    with pytest.raises(RayNotADashboard, match="10001 rows; expected 10000 at most"):
        await ask[route]()
