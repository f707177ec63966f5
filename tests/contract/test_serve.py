from __future__ import annotations

import pytest

from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.errors import RayServeBadAnswer, RayServeNotReady
from airflow_provider_ray.client.jobs.waiting import wait_for_job
from airflow_provider_ray.client.serving.application import ServeRoute
from tests.contract.conftest import APPLICATION, BIG_ANSWER_BYTES, JOB_SECONDS, PREFIX, Cluster

pytestmark = pytest.mark.anyio

WAIT = {"poll_interval": 0.5, "timeout": 90.0}


async def test_waiting_for_an_application(cluster: Cluster, client: RayClient, served: str) -> None:
    url = await ServeRoute(client, APPLICATION, "/", served).wait(**WAIT)
    assert url == f"http://127.0.0.1:{cluster.serve_port}{PREFIX}/"
    assert await ServeRoute(client, None, f"{PREFIX}/sub").wait(**WAIT) == f"{url}sub"
    details = await client.serve.details()
    application = details.applications[APPLICATION]
    assert (application.status, application.route_prefix) == ("RUNNING", PREFIX)
    assert details.port == cluster.serve_port


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_calls(client: RayClient, served: str, method: str) -> None:
    body = {"text": 'é $() "\n', "number": 1.5} if method in ("POST", "PUT") else None
    target = ServeRoute(client, APPLICATION, "/sub/path?x=1", served)
    answer = await target.call(**WAIT, method=method, data=body, headers={"X-Own": "1"})
    assert (answer["method"], answer["path"], answer["query"]) == (method, "/sub/path", {"x": "1"})
    assert answer["body"] == body
    headers = {key.lower(): value for key, value in answer["headers"].items()}
    assert headers["x-own"] == "1"
    assert not {"authorization", "x-ray-authorization"} & set(headers)


async def test_the_routes_are_not_below_the_root_path(cluster: Cluster, client: RayClient, served: str) -> None:
    assert (await ServeRoute(client, APPLICATION, "/sub", served).call(**WAIT))["path"] == "/sub"
    with pytest.raises(RayServeBadAnswer, match=r"404: Path '/base/base/contract/sub' not found"):
        await client.serve.call(f"http://127.0.0.1:{cluster.serve_port}/base{PREFIX}/sub")


async def test_a_slash_at_the_end_is_kept(client: RayClient, served: str) -> None:
    name = f"{APPLICATION}-fastapi"
    assert await ServeRoute(client, name, "/", served).call(**WAIT, method="POST") == {"fastapi": True}
    there, advice = rf"http://127.0.0.1:\d+/base{PREFIX}-fastapi/", "write the path with the slash at its end"
    with pytest.raises(RayServeBadAnswer, match=rf"307: redirected to {there}, .*; {advice}$"):
        await ServeRoute(client, name, "").call(**WAIT, method="POST")


async def test_the_application_outlives_its_job(client: RayClient, served: str) -> None:
    job = await wait_for_job(client, served, poll_interval=0.5, timeout=JOB_SECONDS)
    assert job.status == "SUCCEEDED"
    assert (await ServeRoute(client, APPLICATION, "/", served).call(**WAIT))["method"] == "GET"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/error", "500: Internal Server Error"),
        ("/text", "text/plain, not JSON .*; it begins with 'plain words'"),
    ],
)
async def test_answers_of_no_use(client: RayClient, served: str, path: str, reason: str) -> None:
    with pytest.raises(RayServeBadAnswer, match=reason):
        await ServeRoute(client, APPLICATION, path).call(**WAIT)


async def test_an_answer_that_is_too_large(client: RayClient, served: str) -> None:
    target = ServeRoute(client, APPLICATION, "/big")
    with pytest.raises(RayServeBadAnswer, match=f"has (more than 1000000|{BIG_ANSWER_BYTES}) bytes, .* is 1000000"):
        await target.call(**WAIT, max_answer_bytes=1_000_000)
    assert len(await target.call(**WAIT, max_answer_bytes=BIG_ANSWER_BYTES)) == BIG_ANSWER_BYTES - 2


async def test_a_missing_route(cluster: Cluster, client: RayClient, served: str) -> None:
    await ServeRoute(client, APPLICATION, "/", served).wait(**WAIT)
    with pytest.raises(RayServeNotReady, match=r"has the routes \[.*'/contract'.*\]"):
        await ServeRoute(client, None, "/nowhere").wait(poll_interval=0.2, timeout=0.5)
    with pytest.raises(RayServeNotReady, match="no such application"):
        await ServeRoute(client, "nobody", "/").wait(poll_interval=0.2, timeout=0.5)
    with pytest.raises(RayServeBadAnswer, match=r"404: Path '/base/nowhere' not found\. Ping .*/-/routes"):
        await client.serve.call(f"http://127.0.0.1:{cluster.serve_port}/nowhere")
