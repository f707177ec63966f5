"""What a cluster answers is checked where it is decoded: what does not fit is an error of this cluster alone."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from airflow_provider_ray.client.api.models import Application, JobDetails
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.errors import RayNotADashboard
from airflow_provider_ray.client.jobs.outcome import Outcome
from tests.fake_dashboard import FakeDashboard

pytestmark = pytest.mark.anyio

JOB: dict[str, Any] = {"submission_id": "j1", "status": "RUNNING"}
VERSION = {"ray_version": "2.60.0"}
NODE = {"node_id": "n1", "state": "ALIVE"}


def rows(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"result": {"result": list(rows)}}}


def application(**state: Any) -> dict[str, Any]:
    return {"applications": {"app": {"name": "app", "status": "RUNNING", **state}}}


ODD: list[tuple[Callable[[RayClient], Awaitable[Any]], Any, str]] = [
    (lambda client: client.jobs.get("j1"), JOB | {"driver_exit_code": 2**70}, "driver_exit_code"),
    (lambda client: client.jobs.get("j1"), JOB | {"driver_exit_code": 2**40}, "driver_exit_code"),
    (lambda client: client.jobs.get("j1"), JOB | {"driver_exit_code": float("nan")}, "driver_exit_code"),
    (lambda client: client.jobs.get("j1"), JOB | {"driver_exit_code": True}, "driver_exit_code"),
    (lambda client: client.jobs.get("j1"), JOB | {"driver_exit_code": "1"}, "driver_exit_code"),
    (lambda client: client.jobs.get("j1"), JOB | {"start_time": "yesterday"}, "start_time"),
    (lambda client: client.jobs.get("j1"), JOB | {"start_time": -1}, "start_time"),
    (lambda client: client.jobs.get("j1"), JOB | {"start_time": float("inf")}, "start_time"),
    (lambda client: client.jobs.get("j1"), JOB | {"end_time": 10**18}, "end_time"),
    (lambda client: client.jobs.get("j1"), JOB | {"end_time": [1]}, "end_time"),
    (lambda client: client.jobs.get("j1"), JOB | {"message": {"a": 1}}, "message"),
    (lambda client: client.jobs.get("j1"), JOB | {"error_type": ["x"]}, "error_type"),
    (lambda client: client.jobs.get("j1"), JOB | {"job_id": 1}, "job_id"),
    (lambda client: client.jobs.get("j1"), JOB | {"driver_node_id": 1.5}, "driver_node_id"),
    (lambda client: client.jobs.get("j1"), JOB | {"submission_id": False}, "submission_id"),
    (lambda client: client.jobs.get("j1"), JOB | {"metadata": {"a": 1}}, "metadata"),
    (lambda client: client.jobs.get("j1"), {"submission_id": "j1"}, "status"),
    (lambda client: client.jobs.get("j1"), JOB | {"status": None}, "status"),
    (lambda client: client.jobs.list(), [JOB, JOB | {"status": ["RUNNING"]}], r"\[1\]\.status"),
    (lambda client: client.jobs.list(), [JOB, {"status": "RUNNING", "end_time": {}}], r"\[1\]\.end_time"),
    (lambda client: client.jobs.active(), rows(JOB | {"start_time": 1.5}), r"result\[0\]\.start_time"),
    (lambda client: client.jobs.active(), rows() | {"data": None}, "data"),
    (lambda client: client.jobs.stop("j1"), {"stopped": "yes"}, "stopped"),
    (lambda client: client.cluster.version(), VERSION | {"session_name": {"a": 1}}, "session_name"),
    (lambda client: client.cluster.version(), VERSION | {"session_name": 2**70}, "session_name"),
    (lambda client: client.cluster.python_version(), {"data": {"pythonVersion": 3.11}}, "pythonVersion"),
    (lambda client: client.cluster.status(), {"data": {"clusterStatus": 7}}, "clusterStatus"),
    (lambda client: client.cluster.authentication_mode(), {"authentication_mode": None}, "authentication_mode"),
    (lambda client: client.cluster.nodes(), rows(NODE | {"is_head_node": "yes"}), "is_head_node"),
    (lambda client: client.cluster.nodes(), rows(NODE | {"state": 1}), "state"),
    (lambda client: client.cluster.nodes(), rows(NODE | {"resources_total": {"CPU": float("nan")}}), "resources_total"),
    (lambda client: client.cluster.nodes(), rows(NODE | {"resources_total": {"CPU": float("inf")}}), "resources_total"),
    (lambda client: client.cluster.nodes(), rows(NODE | {"resources_total": {"CPU": 1e300}}), "resources_total"),
    (lambda client: client.cluster.nodes(), rows(NODE | {"resources_total": {"CPU": -1}}), "resources_total"),
    (lambda client: client.cluster.nodes(), rows(NODE | {"resources_total": {"CPU": "4"}}), "resources_total"),
    (lambda client: client.serve.details(), application(status=1), "status"),
    (lambda client: client.serve.details(), application(route_prefix=["/a"]), "route_prefix"),
    (lambda client: client.serve.details(), {"applications": ["app"]}, "applications"),
    (lambda client: client.serve.details(), {"http_options": {"port": 0}}, "port"),
    (lambda client: client.serve.details(), {"http_options": {"port": 65536}}, "port"),
    (lambda client: client.serve.details(), {"http_options": {"port": "8000@other:1"}}, "port"),
    (lambda client: client.serve.details(), {"http_options": {"ssl_certfile": 1}}, "ssl_certfile"),
]


@pytest.mark.parametrize(("ask", "body", "where"), ODD)
async def test_what_does_not_fit_is_refused_with_its_place(
    client: RayClient, fake: FakeDashboard, ask: Callable[[RayClient], Awaitable[Any]], body: Any, where: str
) -> None:
    fake.fail(200, text=json.dumps(body))
    pattern = rf"^(GET|POST) {fake.url}/api/\S+: answered, but not as Ray's dashboard does \(.*{where}.*\)$"
    with pytest.raises(RayNotADashboard, match=pattern) as caught:
        await ask(client)
    assert not caught.value.transient
    assert len(str(caught.value)) < 500


async def test_nulls_and_missing_keys_are_the_same(client: RayClient, fake: FakeDashboard) -> None:
    names = ("submission_id", "job_id", "message", "error_type", "driver_exit_code", "driver_node_id", "entrypoint")
    for keys in ({}, dict.fromkeys((*names, "metadata", "start_time", "end_time"))):
        fake.fail(200, text=json.dumps({**keys, "status": "A NEW STATE", "more": [1]}))
        assert await client.jobs.get("j1") == JobDetails(status="A NEW STATE")
        fake.faults.clear()
    for options in ({}, {"http_options": None, "applications": None}, {"http_options": {"port": None}}):
        fake.fail(200, text=json.dumps(options))
        details = await client.serve.details()
        assert (details.port, details.has_tls, details.applications) == (None, False, {})
        fake.faults.clear()
    fake.fail(200, text=json.dumps(application(message=None, route_prefix=None)))
    assert (await client.serve.details()).applications == {"app": Application(name="app", status="RUNNING")}


async def test_the_limits_are_possible(client: RayClient, fake: FakeDashboard) -> None:
    last_ms = 253_402_300_799_999
    job = JOB | {"driver_exit_code": -9, "start_time": 0, "end_time": last_ms, "metadata": {"a": "b"}}
    fake.fail(200, text=json.dumps(job))
    found = await client.jobs.get("j1")
    assert (found.driver_exit_code, found.start_time_ms, found.end_time_ms) == (-9, 0, last_ms)
    assert (found.metadata, found.seconds) == ({"a": "b"}, last_ms / 1000)


@pytest.mark.parametrize(
    "options",
    [
        {"root_path": ""},
        {"root_path": "/base"},
        {"root_path": "@other:8001"},
        {"root_path": ".other"},
        {"root_path": 1},
        {"host": "other"},
        {"root_url": "http://other"},
    ],
)
async def test_a_cluster_tells_no_more_than_the_port_of_serve(
    client: RayClient, fake: FakeDashboard, options: dict[str, Any]
) -> None:
    fake.fail(200, text=json.dumps({"http_options": {"port": 8000, **options}}))
    assert await client.serve.base_url() == "http://127.0.0.1:8000"


# Ray stores them in a runtime_env, and from there no job of the cluster should become unreadable.
@pytest.mark.parametrize("value", [r'"\ud83d"', "NaN", "-Infinity", "1e999", r'"\u0000"', "1" * 1000])
async def test_json_beyond_the_standard_does_no_harm_where_nobody_reads_it(
    client: RayClient, fake: FakeDashboard, value: str
) -> None:
    fake.fail(200, text=f'[{{"status": "RUNNING", "submission_id": "j1", "runtime_env": {{"a": {value}}}}}]')
    assert await client.jobs.list() == [JobDetails(submission_id="j1", status="RUNNING")]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"a\u0000b", "ab"),
        (r"a\\u0000b", r"a\u0000b"),
        (r"a\\\u0000b", "a\\b"),
        (r"\ud83d\ude00", "😀"),
        (r"a\ud83db", "a?b"),
        (r"a\ude00b", "a?b"),
        (r"\ude00\ud83d\u0000", "??"),
        ("é\\u00e9", "éé"),
    ],
)
async def test_texts_can_be_stored(client: RayClient, fake: FakeDashboard, written: str, read: str) -> None:
    text = f'{{"status": "FAILED", "message": "{written}", "metadata": {{"{written}": "{written}"}}}}'
    fake.fail(200, text=text)
    job = await client.jobs.get("j1")
    assert (job.message, job.metadata) == (read, {read: read})


def test_an_event_rebuilds_the_job_without_its_secrets() -> None:
    job = JobDetails(
        submission_id="j1",
        status="FAILED",
        job_id="01000000",
        message="m",
        error_type="e",
        driver_exit_code=1,
        driver_node_id="n",
        entrypoint="python main.py --password=s3cret",
        metadata={"a": "s3cret"},
        start_time_ms=1,
        end_time_ms=2,
    )
    event = json.loads(json.dumps(Outcome(job=job).to_json()))
    assert "s3cret" not in str(event)
    assert Outcome.from_json(event).job == msgspec.structs.replace(job, entrypoint=None, metadata=None)


@pytest.mark.parametrize(
    ("key", "value"), [("driver_exit_code", 2**70), ("status", None), ("end_time", "1"), ("message", ["x"])]
)
def test_an_event_goes_through_the_same_checks(key: str, value: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match=key):
        Outcome.from_json({"job": {**JobDetails(**JOB).to_json(), key: value}})
