"""A cluster that answers anything at all: what comes out is an error of this cluster, and all others go on.

The seed is fixed, so a failure can be repeated; change it to look further.
"""

from __future__ import annotations

import asyncio
import copy
import gzip
import json
import random
import socketserver
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest
from airflow.cli import cli_parser

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.models import JobDetails
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.clusters.survey import survey
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayError, RayRequestError
from airflow_provider_ray.client.jobs.driver_log import read_log
from airflow_provider_ray.client.json_text import sanitized
from airflow_provider_ray.clusters.selection import choose
from airflow_provider_ray.fan_out.plan import ask_participants
from airflow_provider_ray.page.answers import cluster_answer
from airflow_provider_ray.page.background import Watcher
from airflow_provider_ray.sensors.cluster import RayClusterSensor
from airflow_provider_ray.triggers.base import RayTrigger
from airflow_provider_ray.triggers.cluster import RayClusterTrigger
from airflow_provider_ray.triggers.job import RayJobTrigger
from airflow_provider_ray.triggers.serve import RayServeTrigger
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.conftest import connect

SEED = 2026
MUTATIONS_PER_ROUTE = 40
LONGEST_ERROR = 5_000
NODE_ID = "f" * 56

Answer = Callable[[str, str], bytes]

JOB = {
    "type": "SUBMISSION",
    "submission_id": "j1",
    "job_id": "01000000",
    "status": "RUNNING",
    "message": "m",
    "error_type": None,
    "driver_exit_code": 1,
    "driver_node_id": NODE_ID,
    "entrypoint": "true",
    "metadata": {"airflow_nonce": "n"},
    "runtime_env": {"env_vars": {"A": "b"}},
    "start_time": 1,
    "end_time": 2,
}
NODE = {
    "node_id": NODE_ID,
    "state": "ALIVE",
    "state_message": None,
    "is_head_node": True,
    "resources_total": {"CPU": 2.0, "memory": 1e9},
}
USAGE = "Resources\n---\nTotal Usage:\n 1.0/2.0 CPU\n 0B/1.00GiB memory\n\nPending Demands:\n (no resource demands)"
SERVE = {
    "http_options": {"host": "127.0.0.1", "port": 8000, "root_path": ""},
    "applications": {"app": {"name": "app", "status": "RUNNING", "message": "m", "route_prefix": "/app"}},
}


def rows(*found: Any) -> Any:
    return {"result": True, "msg": "", "data": {"result": {"total": len(found), "result": list(found)}}}


# What a healthy cluster answers.
SOUND: dict[str, Any] = {
    "/api/version": {"version": "4", "ray_version": "2.60.0", "session_name": "session"},
    "/api/authentication_mode": {"authentication_mode": "disabled"},
    "/api/v0/nodes": rows(NODE),
    "/api/v0/cluster_metadata": {"data": {"rayVersion": "2.60.0", "pythonVersion": "3.11.2"}},
    "/api/cluster_status": {"result": True, "data": {"clusterStatus": USAGE}},
    "/api/v0/jobs": rows(JOB),
    "/api/jobs/": [JOB],
    "/api/jobs/j1": JOB,
    "/api/jobs/j1/stop": {"stopped": True},
    "/api/serve/applications/": SERVE,
    "/-/routes": {"/app": "app"},
}


async def _call(client: RayClient) -> Any:
    return (await client.serve.call(f"{client.config.url}/app")).value


ROUTES: dict[str, tuple[str, Callable[[RayClient], Awaitable[Any]]]] = {
    "version": ("/api/version", lambda client: client.cluster.version()),
    "authentication": ("/api/authentication_mode", lambda client: client.cluster.authentication_mode()),
    "nodes": ("/api/v0/nodes", lambda client: client.cluster.nodes()),
    "python": ("/api/v0/cluster_metadata", lambda client: client.cluster.python_version()),
    "status": ("/api/cluster_status", lambda client: client.cluster.status()),
    "capacity": ("/api/cluster_status", lambda client: client.capacity()),
    "get": ("/api/jobs/j1", lambda client: client.jobs.get("j1")),
    "list": ("/api/jobs/", lambda client: client.jobs.list()),
    "active": ("/api/v0/jobs", lambda client: client.jobs.active()),
    "ended": ("/api/v0/jobs", lambda client: client.jobs.ended(10)),
    "submit": ("/api/jobs/", lambda client: client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1"))),
    "stop": ("/api/jobs/j1/stop", lambda client: client.jobs.stop("j1")),
    "delete": ("/api/jobs/j1", lambda client: client.jobs.delete("j1")),
    "log": ("/api/v0/logs/file", lambda client: read_log(client, "j1")),
    "package": ("/api/packages/gcs/a.zip", lambda client: client.cluster.has_package("gcs://a.zip")),
    "upload": ("/api/packages/gcs/a.zip", lambda client: client.cluster.put_package("gcs://a.zip", b"x")),
    "applications": ("/api/serve/applications/", lambda client: client.serve.details()),
    "address": ("/api/serve/applications/", lambda client: client.serve.base_url()),
    "routes": ("/-/routes", lambda client: client.serve.routes(client.config.url)),
    "call": ("/app", _call),
}

# JSON of every type, as text: much of it is beyond what Python's json writes.
VALUES = [
    *(b"null", b"true", b"false", b"0", b"-1", b"1.5", b"-0.0", b"1e400", b"-1e400", b"NaN", b"Infinity", b"-Infinity"),
    *(b"9" * 10_000, b"-" + b"9" * 10_000, b"0." + b"9" * 10_000, b"1" + b"0" * 400, str(2**63).encode()),
    *(str(2**64).encode(), str(-(2**63) - 1).encode(), b"253402300800000", b"4294967296"),
    *(b'""', b'"x"', b'"1"', b'"RUNNING"', b'"SUCCEEDED"', b'"' + b"x" * 100_000 + b'"', b'"' + b"9" * 10_000 + b'"'),
    *(rb'"\u0000"', rb'"\ud83d"', rb'"\ude00\ud83d"', rb'"\ud83d\ude00"', '"é😀"'.encode(), rb'"\x1b[31m\n\r"'),
    *(b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\x00"', b"'x'", b"x", b"", b",", b"}", b"]", b"\x00"),
    *(b"[]", b"{}", b"[null]", b'[""]', b'{"":null}', b'{"a":{"a":1}}', b"[[[[1]]]]", b'{"a":1,"a":2}'),
    *(b"[" * 900 + b"]" * 900, b"[" * 50_000 + b"]" * 50_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b"[" * 50_000),
    *(b"[" + b"1," * 20_000 + b"1]", b"{" + b",".join(b'"%d":1.0' % number for number in range(5_000)) + b"}"),
]


class Hostile(socketserver.ThreadingTCPServer):
    """Answers each request with the bytes that the test wants, and hangs up."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Answer = sound
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has heard enough hangs up."""


class _Handler(socketserver.StreamRequestHandler):
    server: Hostile

    def handle(self) -> None:
        method, path, _ = self.rfile.readline().decode().split(" ", 2)
        size = 0
        while (line := self.rfile.readline().strip().lower()) != b"":
            if line.startswith(b"content-length:"):
                size = int(line.partition(b":")[2])
        self.rfile.read(size)
        self.wfile.write(self.server.answer(method, path.partition("?")[0]))


def reply(body: bytes, *headers: str, length: int | None = None, status: str = "200 OK") -> bytes:
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {size}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def sound(method: str, path: str) -> bytes:
    """What a healthy cluster answers."""
    if method in ("POST", "DELETE") and path.startswith("/api/jobs/") and not path.endswith("/stop"):
        return reply(json.dumps({"submission_id": "j1", "deleted": True}).encode())
    return reply(json.dumps(SOUND[path]).encode() if path in SOUND else b"{}")


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in JSON, the whole included."""
    yield here
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*here, key))


def with_value(body: Any, place: tuple[Any, ...], value: bytes) -> bytes:
    """The JSON with another value in one place."""
    if not place:
        return value
    changed = copy.deepcopy(body)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = "@@"
    return json.dumps(changed).encode().replace(b'"@@"', value)


def bomb(size: int, begin: bytes = b'{"ray_version": "', end: bytes = b'"}') -> bytes:
    return begin + b" " * size + end


def chunked(*chunks: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + b"".join(chunks)


def on_the_wire() -> dict[str, bytes]:
    """Answers that are wrong below JSON."""
    body = json.dumps(SOUND["/api/version"]).encode()
    return {
        "nothing": b"",
        "no HTTP": b"\x00\x01\x02",
        "no status": b"HTTP/1.1\r\n\r\n",
        "status 99": reply(body, status="099 Low"),
        "status 999": reply(body, status="999 High"),
        "no reason": reply(body, status="200"),
        "strange reason": reply(body, status="500 \xff\x00"),
        "204": reply(b"", status="204 No Content"),
        "100": b"HTTP/1.1 100 Continue\r\n\r\n" + reply(body),
        "101": reply(b"", "Upgrade: websocket", status="101 Switching Protocols"),
        "304": reply(b"", status="304 Not Modified"),
        "redirect": reply(b"", "Location: http://[::1", status="302 Found"),
        "401": reply(b"\xff" * 100_000, status="401 Unauthorized"),
        "500": reply(b"Traceback\n" * 100_000, status="500 Internal Server Error"),
        "503": reply(b"\x00\xed\xa0\x80" * 1000, status="503 Service Unavailable"),
        "HTTP/0.9": body,
        "HTTP/2": b"HTTP/2 200 OK\r\n\r\n" + body,
        "many headers": reply(body, *(f"X-{number}: {'x' * 100}" for number in range(2000))),
        "long header": reply(body, f"X: {'x' * 100_000}"),
        "bad header": reply(body, "no colon"),
        "two lengths": reply(body, "Content-Length: 3"),
        "negative length": reply(body, length=-1),
        "long number as length": reply(body, length=10**30),
        "text as length": reply(body).replace(b"Content-Length: ", b"Content-Length: x"),
        "more announced than sent": reply(body, length=len(body) + 10),
        "much announced": reply(body, length=2**60),
        "less announced than sent": reply(body, length=5),
        "length and chunks": reply(body, "Transfer-Encoding: chunked"),
        "cut chunk": chunked(b"ff\r\n" + body),
        "chunk with a strange size": chunked(b"xyz\r\n" + body),
        "huge chunk": chunked(b"f" * 20 + b"\r\n" + body),
        "no last chunk": chunked(b"%x\r\n%s\r\n" % (len(body), body)),
        "many chunks": chunked(*(b"1\r\n \r\n" for _ in range(5000)), b"0\r\n\r\n"),
        "utf-16": reply(body.decode().encode("utf-16"), "Content-Type: application/json; charset=utf-16"),
        "utf-8 with a mark": reply(b"\xef\xbb\xbf" + body),
        "unknown charset": reply(body, "Content-Type: application/json; charset=nobody"),
        "odd content type": reply(b"x", "Content-Type: ;;;\xff"),
        "not gzip": reply(body, "Content-Encoding: gzip"),
        "half a gzip": reply(gzip.compress(body)[:-10], "Content-Encoding: gzip"),
        "unknown encoding": reply(body, "Content-Encoding: nobody"),
        "gzip bomb": reply(gzip.compress(bomb(2**26)), "Content-Encoding: gzip"),
        "deflate bomb": reply(zlib.compress(bomb(2**26)), "Content-Encoding: deflate"),
        "bomb in a bomb": reply(gzip.compress(gzip.compress(bomb(2**26))), "Content-Encoding: gzip, gzip"),
        "list bomb": reply(gzip.compress(b"[" + b'{"status":""},' * 2**20 + b"0]"), "Content-Encoding: gzip"),
        "deep bomb": reply(gzip.compress(b"[" * 2**24), "Content-Encoding: gzip"),
        "many gzips": reply(gzip.compress(b" ") * 5000, "Content-Encoding: gzip"),
    }


WIRE = on_the_wire()


def instead_of(path: str, text: bytes) -> Answer:
    """Sound answers, except on one path."""
    return lambda method, asked: reply(text) if asked == path else sound(method, asked)


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    with Hostile() as server:
        yield server
        server.shutdown()


def config(server: Hostile) -> ClusterConfig:
    return ClusterConfig(url=server.url, serve_url=server.url, connect_timeout=2, read_timeout=1)


def check_stored(value: Any) -> None:
    """Airflow can put it into an event, which is a message between processes, and into its database."""
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    assert sanitized(value) == value
    msgspec.msgpack.encode(value)


def check_value(value: Any) -> None:
    if hasattr(value, "to_json"):
        check_stored(value.to_json())
    elif isinstance(value, list):
        for each in value:
            check_value(each)
    elif isinstance(value, msgspec.Struct):
        check_stored(msgspec.to_builtins(value))
    else:
        check_stored(value)


async def ask(client: RayClient, route: str) -> None:
    """The answer can be stored, or the fault is one of ours, short and storable."""
    try:
        check_value(await ROUTES[route][1](client))
    except RayError as error:
        assert len(str(error)) < LONGEST_ERROR
        check_stored(error.to_json())
        str(error).encode()


@pytest.mark.anyio
@pytest.mark.parametrize("route", ROUTES)
async def test_a_route_gives_a_value_or_an_error_of_ours(hostile: Hostile, route: str) -> None:
    path = ROUTES[route][0]
    chosen, body = random.Random(f"{SEED} {route}"), SOUND.get(path, {})
    found = list(places(body))
    async with RayClient(config(hostile)) as client:
        for number in range(MUTATIONS_PER_ROUTE):
            place = () if number < MUTATIONS_PER_ROUTE // 4 else chosen.choice(found)
            text = with_value(body, place, chosen.choice(VALUES))
            hostile.answer = instead_of(path, text)
            await ask(client, route)


@pytest.mark.anyio
@pytest.mark.parametrize("case", WIRE)
async def test_a_route_survives_what_is_wrong_on_the_wire(hostile: Hostile, case: str) -> None:
    hostile.answer = lambda *_: WIRE[case]
    async with RayClient(config(hostile)) as client:
        for route in ("version", "list", "upload", "call"):
            await ask(client, route)


# Behaviors of a whole cluster: everything it answers is like this.
def everywhere(value: bytes) -> Answer:
    return lambda *_: reply(value)


def last_value(value: bytes) -> Answer:
    """Sound answers whose last value is another one."""

    def answer(method: str, path: str) -> bytes:
        body = SOUND.get(path, {})
        return reply(with_value(body, list(places(body))[-1], value))

    return answer


BEHAVIORS: dict[str, Answer] = {
    "deep": everywhere(b"[" * 50_000),
    "number": everywhere(b"9" * 10_000),
    "NaN last": last_value(b"NaN"),
    "huge last": last_value(b"9" * 10_000),
    "surrogates last": last_value(rb'"\ud83d\u0000"'),
    "list last": last_value(b"[1]"),
    "job": lambda method, path: (
        reply(with_value(JOB, ("driver_exit_code",), str(2**70).encode())) if "j1" in path else sound(method, path)
    ),
    "bomb": lambda *_: WIRE["list bomb"],
    "cut": lambda *_: WIRE["cut chunk"],
    "nothing": lambda *_: b"",
}


@pytest.fixture
def good(monkeypatch: pytest.MonkeyPatch, hostile: Hostile) -> Iterator[FakeDashboard]:
    """A healthy cluster with a job that ends, beside the hostile one."""
    for name, seconds in {
        "FAULT_BUDGET_SECONDS": 0.1,
        "FIRST_PAUSE_SECONDS": 0.02,
        "SECOND_LOOK_SECONDS": 0.05,
        "HICCUP_SECONDS": 0.05,
        "EARLIEST_EVENT_SECONDS": 0.0,
        "PAGE_REFRESH_SECONDS": 0.02,
        "STOP_CONFIRM_SECONDS": 0.2,
    }.items():
        monkeypatch.setattr(pacing, name, seconds)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")
    extra = {"connect_timeout": 1, "read_timeout": 0.5, "serve_url": hostile.url}
    connection = {"conn_type": "ray", "host": hostile.url, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_BAD", json.dumps(connection))
    with FakeDashboard() as fake:
        connect(monkeypatch, "good", fake)
        fake.outcomes["j1"] = Outcome(ends_after=0.3)
        yield fake


def triggers(conn_id: str) -> list[RayTrigger]:
    ends, soon = time.time() + 1, 0.1
    room = {"free_resources": {"CPU": 1.0}, "max_pending_jobs": 5}
    return [
        RayJobTrigger(role="observer", conn_id=conn_id, submission_id="j1", poll_interval=soon, end_time=ends),
        RayJobTrigger(role="observer", conn_id=conn_id, metadata={"a": "b"}, poll_interval=soon, end_time=ends),
        RayClusterTrigger(conn_ids=[conn_id], room=room, required=1, poll_interval=soon, end_time=ends),
        RayServeTrigger(
            conn_id=conn_id, application="app", path="/", submission_id=None, poll_interval=soon, end_time=ends
        ),
    ]


async def fired(trigger: RayTrigger) -> Any:
    event = [each.payload async for each in trigger.run()][-1]
    check_stored(event)
    return event


@pytest.mark.anyio
@pytest.mark.parametrize("behavior", BEHAVIORS)
async def test_the_triggerer_goes_on_for_all_other_clusters(
    good: FakeDashboard, hostile: Hostile, behavior: str
) -> None:
    hostile.answer = BEHAVIORS[behavior]
    async with RayClient(ClusterConfig(url=good.url)) as client:
        await client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1", metadata={"a": "b"}))
    all_events = await asyncio.gather(*(fired(each) for each in [*triggers("bad"), *triggers("good")]))
    by_id, by_metadata, room, _ = all_events[4:]
    assert (by_id["job"]["status"], by_metadata["job"]["status"]) == ("SUCCEEDED", "SUCCEEDED")
    assert list(room["ready"]) == ["good"]


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_everything_else_goes_on_for_all_other_clusters(
    good: FakeDashboard, hostile: Hostile, behavior: str, capsys: pytest.CaptureFixture[str], context: Any
) -> None:
    hostile.answer = BEHAVIORS[behavior]
    for strategy in ("first_healthy", "least_loaded", "round_robin"):
        assert choose(["bad", "good"], strategy, context).conn_id in ("bad", "good")
    try:
        assert "good" in ask_participants(["bad", "good"]).capacities
    except RayRequestError as error:
        assert hostile.url in str(error)
    args = cli_parser.get_parser().parse_args(["ray", "clusters", "--conn-id", "bad", "good", "--output", "json"])
    args.func(args)
    found = {row["conn_id"]: row["health"] for row in json.loads(capsys.readouterr().out)}
    assert found["good"] == "healthy"
    sensor = RayClusterSensor(task_id="room", conn_id="good", max_pending_jobs=5, deferrable=False)
    assert list(sensor.execute(context)) == ["good"]
    both = asyncio.run(survey({"bad": config(hostile), "good": ClusterConfig(url=good.url)}))
    assert not isinstance(both["good"], RayError)
    check_page()


def check_page() -> None:
    watcher = Watcher()
    try:
        deadline = time.monotonic() + 10
        while True:
            bad, fine = watcher.look({"bad": ("j1",), "good": ()})
            answers = [cluster_answer(each, may_stop=True, dags={"dag"}) for each in (bad, fine)]
            check_stored(answers)
            assert len(json.dumps(answers)) < 200_000
            if answers[1]["health"] == "healthy" and (bad.version.value or bad.version.error):
                return
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        watcher.close()


def test_what_the_fuzz_begins_with_is_sound(hostile: Hostile) -> None:
    async def asked() -> None:
        async with RayClient(config(hostile)) as client:
            for route in ROUTES:
                check_value(await ROUTES[route][1](client))
            assert isinstance(await client.jobs.get("j1"), JobDetails)
            assert (await client.capacity()).free == {"CPU": 1.0, "memory": 1e9}

    asyncio.run(asked())
