"""Who may do what on the page, as far as that can be read off the routes, and what they answer to whom may.

tests/browser asks a real API server.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pytest
from fastapi import HTTPException, Request
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.sync import run_sync
from airflow_provider_ray.page import api, background
from airflow_provider_ray.page.access import requires_own_page
from airflow_provider_ray.page.api import app
from airflow_provider_ray.page.task import Task, TaskJobId
from tests.fake_dashboard import FakeDashboard, Outcome

JSON = {"content-type": "application/json"}
OWN = {**JSON, "host": "airflow.example"}


def demands(dependant: Any) -> Iterator[str]:
    for each in dependant.dependencies:
        yield getattr(each.call, "__qualname__", "")
        yield from demands(each)


@pytest.mark.parametrize("route", app.routes, ids=lambda route: route.path)
def test_every_route_demands_a_permission_of_airflow(route: Any) -> None:
    assert isinstance(route, APIRoute)
    found = list(demands(route.dependant))
    assert [name for name in found if name.startswith("requires_access_")], found
    assert "get_user" in found


def test_only_a_stop_changes_anything_and_it_wants_to_come_from_the_page() -> None:
    changing = [route for route in app.routes if isinstance(route, APIRoute) and route.methods != {"GET"}]
    (stop,) = changing
    assert stop.methods == {"POST"}
    assert "requires_own_page" in list(demands(stop.dependant))


def ask(headers: dict[str, str], scheme: str = "http") -> int:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "scheme": scheme, "path": "/", "headers": raw, "server": ("127.0.0.1", 80)}
    try:
        requires_own_page(Request(scope))
    except HTTPException as error:
        return error.status_code
    return 200


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({**OWN, "sec-fetch-site": "same-origin"}, 200),
        ({**OWN, "origin": "http://airflow.example"}, 200),
        ({**OWN, "origin": "https://public.example"}, 200),
        ({**OWN, "content-type": "Application/JSON; charset=utf-8", "sec-fetch-site": "same-origin"}, 200),
        (OWN, 403),
        ({**OWN, "sec-fetch-site": "same-site", "origin": "http://airflow.example"}, 403),
        ({**OWN, "sec-fetch-site": "cross-site"}, 403),
        ({**OWN, "sec-fetch-site": "none"}, 403),
        ({**OWN, "origin": "http://evil.example"}, 403),
        ({**OWN, "origin": "https://airflow.example"}, 403),
        ({**OWN, "origin": "http://airflow.example.evil.example"}, 403),
        ({**OWN, "origin": "null"}, 403),
        ({**JSON, "origin": "http://None"}, 403),
        ({"sec-fetch-site": "same-origin"}, 415),
        ({"sec-fetch-site": "same-origin", "content-type": "text/plain"}, 415),
        ({"sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_where_a_stop_may_come_from(headers: dict[str, str], answer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://public.example/airflow")
    assert ask(headers) == answer


TASK_PATH = "dags/dag/runs/run/tasks/submit/-1"
STOP = "/api/connections/fake/jobs/{}/stop"
FROM_OWN_PAGE = {"sec-fetch-site": "same-origin", "content-type": "application/json"}
PNG = b"\x89PNG and so on"


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch, dashboard: FakeDashboard) -> Iterator[TestClient]:
    """Requests of a user whom Airflow's checks let pass; two connections, of which one may be read and edited."""
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    checks: set[Any] = {each.call for route in routes for each in route.dependant.dependencies}
    passed: dict[Any, Any] = {check: lambda: None for check in checks - {Task, requires_own_page}}
    monkeypatch.setattr(app, "dependency_overrides", passed)
    monkeypatch.setattr(background, "all_conn_ids", lambda: ["fake", "ray_default"])
    monkeypatch.setattr(api, "permitted_connections", only_fake)
    monkeypatch.setattr(api, "readable_dags", lambda dag_ids, user: set(dag_ids))
    submit(dashboard, "job")
    with TestClient(app) as client:
        yield client


def only_fake(conn_ids: Collection[str], user: Any, method: str) -> set[str]:
    return {"fake"} & set(conn_ids)


def submit(fake: FakeDashboard, name: str) -> None:
    fake.outcomes[name] = Outcome(ends_after=None)

    async def post() -> None:
        async with RayClient(ClusterConfig(url=fake.url)) as client:
            await client.jobs.submit(JobSpec(entrypoint="true", submission_id=name))

    run_sync(post)


def test_the_page_and_its_files_may_do_nothing_else_in_a_browser(browser: TestClient) -> None:
    for path, kind in (("/page", "text/html"), ("/static/page.js", "javascript"), ("/static/page.css", "text/css")):
        answer = browser.get(path)
        assert answer.status_code == 200
        assert kind in answer.headers["content-type"]
        assert {name: answer.headers[name] for name in api.PAGE_HEADERS} == api.PAGE_HEADERS
    assert browser.get("/static/page.html").status_code == 422


def test_clusters_are_those_that_the_user_may_read(browser: TestClient) -> None:
    answer = browser.get("/api/clusters").json()
    assert answer["refresh"] > 0
    assert [cluster["conn_id"] for cluster in answer["clusters"]] == ["fake"]


def test_a_broken_variable_is_reported_without_its_value(
    browser: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow_provider_ray.clusters.discovery import candidates

    monkeypatch.setenv("AIRFLOW_VAR_RAY_CLUSTERS", '"s3cr3t-value"')
    monkeypatch.setattr(background, "all_conn_ids", candidates)
    answer = browser.get("/api/clusters")
    assert answer.status_code == 500
    assert "ray_clusters" in answer.json()["detail"]
    assert "s3cr3t" not in answer.text


@pytest.mark.parametrize(
    ("job", "shown"),
    [
        (None, []),
        (TaskJobId("fake", "job"), [("fake", True)]),
        (TaskJobId("ray_default", "job"), [("ray_default", False)]),
    ],
)
def test_the_tab_of_a_task_shows_the_cluster_of_its_job(
    browser: TestClient, monkeypatch: pytest.MonkeyPatch, job: TaskJobId | None, shown: list[tuple[str, bool]]
) -> None:
    monkeypatch.setattr(api, "job_of", {Task("dag", "run", "submit", -1): job}.__getitem__)

    clusters = browser.get(f"/api/{TASK_PATH}").json()["clusters"]
    assert [(cluster["conn_id"], cluster["may_stop"]) for cluster in clusters] == shown


def test_a_stop_reaches_the_cluster(browser: TestClient, dashboard: FakeDashboard) -> None:
    assert browser.post(STOP.format("job"), headers=FROM_OWN_PAGE, content="{}").json() == {"stopped": True}
    assert browser.post(STOP.format("job"), headers={}, content="{}").status_code == 403


def test_a_stop_that_fails_is_explained(browser: TestClient) -> None:
    missing = browser.post(STOP.format("nothing"), headers=FROM_OWN_PAGE, content="{}")
    assert missing.status_code == 404
    unknown = browser.post(STOP.format("job").replace("fake", "nowhere"), headers=FROM_OWN_PAGE, content="{}")
    assert unknown.status_code == 502
    assert unknown.json()["detail"]


@pytest.mark.parametrize(
    ("found", "status", "kind"), [(PNG, 200, "image/png"), ("there is none", 404, "text/plain; charset=utf-8")]
)
def test_a_picture_or_why_there_is_none(
    browser: TestClient, monkeypatch: pytest.MonkeyPatch, found: bytes | str, status: int, kind: str
) -> None:
    monkeypatch.setattr(api, "picture_of", {Task("dag", "run", "submit", -1): found}.__getitem__)
    answer = browser.get(f"/{TASK_PATH}/picture")
    assert (answer.status_code, answer.headers["content-type"]) == (status, kind)
    assert answer.content == (found if isinstance(found, bytes) else found.encode())
