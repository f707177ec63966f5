"""Routes of the page; each one requires one of Airflow's permissions, even the static files.

Types are imported at module level because FastAPI looks them up there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from fastapi import Depends, FastAPI, HTTPException, Request, Response, status
from fastapi.responses import FileResponse, PlainTextResponse

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.errors import RayConfigError, RayError, RayNotFound
from airflow_provider_ray.compat.server import (
    AccessView,
    DagAccessEntity,
    GetUserDep,
    action_logging,
    get_user,
    requires_access_connection,
    requires_access_dag,
    requires_access_view,
)
from airflow_provider_ray.page.access import permitted_connections, readable_dags, requires_own_page
from airflow_provider_ray.page.answers import cluster_answer, fault_in_words, stamped_dags, task_answer
from airflow_provider_ray.page.background import Watcher
from airflow_provider_ray.page.task import Task, job_of, picture_of

STATIC = Path(__file__).parent / "static"
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# A browser wraps an image in a document with styles of its own.
PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'self'"
TASK_PATH = "/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}"

TaskDep = Annotated[Task, Depends()]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.watcher = Watcher()
    try:
        yield
    finally:
        await asyncio.to_thread(app.state.watcher.close)


app = FastAPI(
    title="Ray",
    openapi_url=None,
    docs_url=None,
    redoc_url=None,
    lifespan=_lifespan,
    dependencies=[Depends(get_user)],
)


@app.middleware("http")
async def add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Forbid the browser to do anything that the page does not need."""
    response = await call_next(request)
    for name, value in PAGE_HEADERS.items():
        response.headers.setdefault(name, value)
    return response


@app.get("/page", dependencies=[Depends(requires_access_view(AccessView.WEBSITE))])
def page() -> FileResponse:
    """The page itself; with dag_id, run_id, task_id and map_index in its query, the tab of a task."""
    return FileResponse(STATIC / "page.html", media_type="text/html")


@app.get("/static/{name}", dependencies=[Depends(requires_access_view(AccessView.WEBSITE))])
def static(name: Literal["page.css", "page.js", "parts.js", "view.js"]) -> FileResponse:
    """Style and script of the page."""
    return FileResponse(STATIC / name)


@app.get("/api/clusters", dependencies=[Depends(requires_access_connection("GET"))])
def clusters(request: Request, user: GetUserDep) -> dict[str, Any]:
    """All clusters whose connections the user may read."""
    watcher: Watcher = request.app.state.watcher
    try:
        conn_ids = watcher.conn_ids()
    except RayConfigError as error:
        # Without its value: a user who may read connections is not necessarily allowed to read Variables.
        raise HTTPException(status.HTTP_500_INTERNAL_SERVER_ERROR, f"{error.field} is not {error.expected}") from error
    readable = permitted_connections(conn_ids, user, "GET")
    editable = permitted_connections(readable, user, "PUT")
    watches = watcher.look(dict.fromkeys(sorted(readable), ()))
    dags = readable_dags(stamped_dags(watches), user)
    answers = [cluster_answer(watch, may_stop=watch.conn_id in editable, dags=dags) for watch in watches]
    return {"refresh": pacing.PAGE_REFRESH_SECONDS, "clusters": answers}


@app.get(f"/api{TASK_PATH}", dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))])
def task_jobs(request: Request, user: GetUserDep, task: TaskDep) -> dict[str, Any]:
    """The Ray jobs of a task instance, and the cluster they are on."""
    watcher: Watcher = request.app.state.watcher
    answers = []
    if job := job_of(task):
        (watch,) = watcher.look({job.conn_id: (job.submission_id,)})
        may_stop = bool(permitted_connections([job.conn_id], user, "PUT"))
        answers.append(task_answer(watch, task, job.submission_id, nonce=job.nonce, may_stop=may_stop))
    return {"refresh": pacing.PAGE_REFRESH_SECONDS, "clusters": answers}


@app.post(
    "/api/connections/{connection_id}/jobs/{submission_id}/stop",
    dependencies=[
        Depends(requires_access_connection("PUT")),
        Depends(requires_own_page),
        Depends(action_logging("ray_stop_job")),
    ],
)
async def stop_job(request: Request, connection_id: str, submission_id: str) -> dict[str, bool]:
    """Stop a job; ``stopped`` is false if it had already ended. Airflow's audit log records who stopped it."""
    watcher: Watcher = request.app.state.watcher
    try:
        return {"stopped": await watcher.stop_job(connection_id, submission_id)}
    except RayNotFound as error:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "The cluster has no such job") from error
    except (RayError, TimeoutError, AirflowNotFoundException) as error:
        raise HTTPException(status.HTTP_502_BAD_GATEWAY, fault_in_words(error)) from error


@app.get(f"{TASK_PATH}/picture", dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.XCOM))])
def picture(task: TaskDep) -> Response:
    """The PNG that a task instance stored in its XCom ``ray_picture``, base64-encoded."""
    found = picture_of(task)
    if isinstance(found, str):
        return PlainTextResponse(found, status.HTTP_404_NOT_FOUND)
    return Response(found, media_type="image/png", headers={"Content-Security-Policy": PICTURE_POLICY})
