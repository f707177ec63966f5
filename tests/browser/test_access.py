"""Each route of the page at a real API server, asked by users with each of Airflow's roles."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from airflow_provider_ray.page.api import app
from dev.page_site import SECRET, Site

Sessions = dict[str, httpx.Client]
OWN = {"Sec-Fetch-Site": "same-origin"}
TASK = "/dags/ray_page/runs/{run}/tasks/{task}/-1"
# What the roles get, by method and path of each route: 200 for those from that role on, 403 for those below.
ROUTES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("GET", "/page"): ("/page", "viewer"),
    ("GET", "/static/{name}"): ("/static/page.js", "viewer"),
    ("GET", "/api/clusters"): ("/api/clusters", "op"),
    ("GET", "/api/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}"): (f"/api{TASK}", "viewer"),
    ("POST", "/api/connections/{connection_id}/jobs/{submission_id}/stop"): (
        "/api/connections/office/jobs/ended/stop",
        "op",
    ),
    ("GET", "/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}/picture"): (f"{TASK}/picture", "viewer"),
}
ROLES = ("nobody", "viewer", "user", "op", "admin")
PICTURE_XCOM = "dags/ray_page/dagRuns/{run}/taskInstances/draw/xcomEntries"


def ask(session: httpx.Client, method: str, path: str, site: Site, task: str = "train", **options: Any) -> Any:
    body = {"json": {}, "headers": OWN} if method == "POST" else {}
    return session.request(method, path.format(run=site.run_id, task=task), **{**body, **options})


def until_known(session: httpx.Client, path: str, key: str) -> dict[str, Any]:
    """The answer when the first cluster is known."""
    deadline = time.monotonic() + 20
    while True:
        answer: dict[str, Any] = session.get(path).raise_for_status().json()
        if answer["clusters"] and all(cluster[key] not in (None, [], "unknown") for cluster in answer["clusters"]):
            return answer
        assert time.monotonic() < deadline, answer
        time.sleep(0.3)


def test_the_table_has_every_route() -> None:
    assert set(ROUTES) == {(*route.methods, route.path) for route in app.routes if isinstance(route, APIRoute)}


@pytest.mark.parametrize("route", ROUTES)
def test_who_may(route: tuple[str, str], clusters: Site, sessions: Sessions) -> None:
    path, lowest = ROUTES[route]
    task = "draw" if path.endswith("/picture") else "train"
    answers = {name: ask(sessions[name], route[0], path, clusters, task).status_code for name in ("anonymous", *ROLES)}
    permitted = ROLES[ROLES.index(lowest) :]
    assert answers == {"anonymous": 401, **{role: 200 if role in permitted else 403 for role in ROLES}}


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/static/page.html", "/static/..%2Fapi.py", "/api"])
def test_nothing_else_is_there(path: str, airflow: Site, sessions: Sessions) -> None:
    assert sessions["admin"].get(path).status_code in (404, 422)
    assert sessions["anonymous"].get(path).status_code in (401, 404)


def test_the_files_say_what_they_may_not_do(airflow: Site, sessions: Sessions) -> None:
    for path in ("/page", "/static/page.js", "/static/parts.js", "/static/view.js", "/static/page.css"):
        headers = sessions["viewer"].get(path).raise_for_status().headers
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({**OWN, "Content-Type": "text/plain"}, 415),
    ],
)
def test_a_stop_from_elsewhere(headers: dict[str, str], answer: int, clusters: Site, sessions: Sessions) -> None:
    path = "/api/connections/gpu_lab/jobs/nightly-retrain/stop"
    sent = {"content-type": "application/json", **{name.lower(): value for name, value in headers.items()}}
    assert sessions["admin"].post(path, content="{}", headers=sent).status_code == answer
    assert sessions["admin"].get(path).status_code == 405
    assert not clusters.clusters["gpu_lab"].asked("POST", "/api/jobs/nightly-retrain/stop")


def test_a_stop_is_in_the_audit_log(clusters: Site, sessions: Sessions) -> None:
    path = "/api/connections/office/jobs/ended/stop"
    assert sessions["op"].post(path, json={}, headers=OWN).json() == {"stopped": False}
    newest = {"event": "ray_stop_job", "order_by": "-event_log_id"}
    entry = clusters.stack.api.call("GET", "eventLogs", params=newest)["event_logs"][0]
    assert entry["owner"] == "op"
    assert '"submission_id": "ended"' in entry["extra"]


@pytest.mark.parametrize(
    ("path", "answer", "text"),
    [
        ("/api/connections/office/jobs/absent/stop", 404, "The cluster has no such job"),
        ("/api/connections/absent/jobs/any/stop", 502, "the API server cannot find the connection"),
    ],
)
def test_a_stop_of_what_is_not_there(path: str, answer: int, text: str, clusters: Site, sessions: Sessions) -> None:
    response = sessions["op"].post(path, json={}, headers=OWN)
    assert (response.status_code, response.json()) == (answer, {"detail": text})


def test_no_secret_reaches_anybody(clusters: Site, sessions: Sessions) -> None:
    whole = until_known(sessions["admin"], "/api/clusters", "running")
    assert {cluster["conn_id"] for cluster in whole["clusters"]} == {"gpu_lab", "office", "cloud"}
    shown = {job["task"]["task_id"] for cluster in whole["clusters"] for job in cluster["jobs"] if job["task"]}
    assert shown == {"train", "shard"}
    until_known(sessions["viewer"], f"/api{TASK}".format(run=clusters.run_id, task="train"), "jobs")
    for (method, _), (path, _) in ROUTES.items():
        for name in ROLES:
            for task in ("train", "draw"):
                answer = ask(sessions[name], method, path, clusters, task)
                assert SECRET not in answer.text
                assert SECRET not in str(answer.headers)


def test_the_jobs_of_a_task(clusters: Site, sessions: Sessions) -> None:
    jobs = clusters.clusters["gpu_lab"].jobs
    (train,) = [name for name in jobs if name.startswith("ray_page-train")]
    (shard,) = [name for name in clusters.clusters["office"].jobs if name.startswith("ray_page-shard")]
    path = f"/api{TASK}".format(run=clusters.run_id, task="train")
    (cluster,) = until_known(sessions["viewer"], path, "jobs")["clusters"]
    assert (cluster["conn_id"], cluster["may_stop"]) == ("gpu_lab", False)
    assert [job["submission_id"] for job in cluster["jobs"]] == [train]
    mapped = path.replace("train/-1", "shard/1")
    (cluster,) = until_known(sessions["op"], mapped, "jobs")["clusters"]
    assert (cluster["conn_id"], cluster["may_stop"]) == ("office", True)
    assert [job["submission_id"] for job in cluster["jobs"]] == [shard]
    for other in (path.replace("train", "draw"), path.replace("ray_page", "absent"), path.replace("-1", "7")):
        assert sessions["viewer"].get(other).json()["clusters"] == []


def test_a_task_without_a_job_has_no_cluster_looked_at(clusters: Site, sessions: Sessions) -> None:
    clusters.clusters["cloud"].requests.clear()
    path = f"/api{TASK}".format(run=clusters.run_id, task="draw")
    assert sessions["viewer"].get(path).json()["clusters"] == []
    time.sleep(1)
    assert not clusters.clusters["cloud"].requests


def test_a_picture(airflow: Site, sessions: Sessions) -> None:
    answer = ask(sessions["viewer"], "GET", f"{TASK}/picture", airflow, "draw")
    assert answer.content.startswith(b"\x89PNG\r\n\x1a\n")
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ("not base64!", "is not a base64-encoded PNG"),
        (base64.b64encode(b"<svg onload='alert(1)'/>").decode(), "is not a base64-encoded PNG"),
        (base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 8 * 1024 * 1024).decode(), "is larger than 8388608 bytes"),
        ({"an": "object"}, "has no XCom 'ray_picture'"),
        (None, "has no XCom 'ray_picture'"),
    ],
    ids=["text", "svg", "large", "object", "absent"],
)
def test_what_is_no_picture(stored: Any, reason: str, airflow: Site, sessions: Sessions) -> None:
    entries = PICTURE_XCOM.format(run=airflow.run_id)
    task = "draw" if stored is None else "train"
    path = f"{TASK}/picture" if stored is not None else f"{TASK}/picture".replace("-1", "5")
    if stored is not None:
        entries = entries.replace("draw", "train")
        airflow.stack.api.call("POST", entries, json={"key": "ray_picture", "value": stored})
    try:
        answer = ask(sessions["viewer"], "GET", path, airflow, task)
        assert (answer.status_code, reason in answer.text) == (404, True)
        assert answer.headers["Content-Type"].startswith("text/plain")
    finally:
        if stored is not None:
            airflow.stack.api.call("DELETE", f"{entries}/ray_picture")


def test_a_variable_that_is_not_a_list_is_not_repeated(clusters: Site, sessions: Sessions) -> None:
    api = clusters.stack.api
    api.call("POST", "variables", json={"key": "ray_clusters", "value": f'"{SECRET}"'})
    try:
        deadline = time.monotonic() + 10
        while (answer := sessions["op"].get("/api/clusters")).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert answer.status_code == 500
        assert answer.json()["detail"].startswith("Airflow Variable ray_clusters is not a JSON list of connection ids")
        assert SECRET not in answer.text
    finally:
        api.call("DELETE", "variables/ray_clusters")
        time.sleep(0.1)
