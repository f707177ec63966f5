"""What leaves the API server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.capacity import Usage
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.sync import run_sync
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.page.answers import cluster_answer, stamped_dags, task_answer
from airflow_provider_ray.page.background import Watcher
from airflow_provider_ray.page.cluster_watch import ClusterWatch
from airflow_provider_ray.page.task import Task
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.conftest import connect

SECRET = "s3cret"
TASK = Task("dag", "run", "task", 3)


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    monkeypatch.setattr(pacing, "PAGE_REFRESH_SECONDS", 0.1)
    made = Watcher()
    yield made
    made.close()


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDashboard]:
    """A cluster with a secret wherever one can be, behind the connection of that name."""
    with FakeDashboard(token=f"{SECRET}-token") as fake:
        headers = {"X-Proxy": f"{SECRET}-header"}
        extra = {"auth_headers": headers, "serve_auth_headers": headers, "serve_token": f"{SECRET}-serve"}
        connect(monkeypatch, "locked", fake, password=fake.token, extra={**extra, "labels": {"site": "lab"}})
        fake.default_outcome = Outcome(ends_after=None)
        fake.deploy("model", "/model", {}, status="DEPLOY_FAILED", message=f"{SECRET}-traceback")
        yield fake


def submit(fake: FakeDashboard, name: str, **metadata: str) -> None:
    spec = JobSpec(
        entrypoint=f"python {SECRET}-entrypoint.py",
        submission_id=name,
        runtime_env={"env_vars": {"KEY": f"{SECRET}-env-var"}},
        metadata={"note": f"{SECRET}-metadata", f"{SECRET}-key": "x", **metadata},
    )

    async def post() -> None:
        async with RayClient(ClusterConfig(url=fake.url, token=fake.token)) as client:
            await client.jobs.submit(spec)

    run_sync(post)


def known(watcher: Watcher, conn_id: str, *jobs: str) -> ClusterWatch:
    """The cluster when everything has been asked for, jobs too."""
    deadline = time.monotonic() + 20
    while True:
        (watch,) = watcher.look({conn_id: jobs})
        active = {job.submission_id for job in watch.jobs.value or ()}
        has_answered = watch.serve.known_at is not None or watch.serve.error is not None
        if has_answered and all(name in active or _is_known(watch, name) for name in jobs):
            return watch
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _is_known(watch: ClusterWatch, name: str) -> bool:
    return name in watch.single and watch.single[name].known_at is not None


def test_no_secret_leaves(locked: FakeDashboard, watcher: Watcher) -> None:
    stamps = TASK.stamps()
    submit(locked, "active", **stamps)
    locked.outcomes["ended"] = Outcome(status="FAILED", exit_code=1, message=f"{SECRET}-log", error_type=f"{SECRET}")
    submit(locked, "ended", **stamps)
    watch = known(watcher, "locked", "ended")
    whole = cluster_answer(watch, may_stop=True, dags={"dag"})
    of_task = task_answer(watch, TASK, "ended", may_stop=True)
    assert [job["submission_id"] for job in whole["jobs"]] == ["active"]
    assert {job["submission_id"] for job in of_task["jobs"]} == {"active", "ended"}
    assert SECRET not in json.dumps([whole, of_task])


def test_what_is_shown_of_a_job(locked: FakeDashboard, watcher: Watcher) -> None:
    submit(locked, "active", **TASK.stamps())
    watch = known(watcher, "locked")
    assert stamped_dags([watch]) == {"dag"}
    (job,) = cluster_answer(watch, may_stop=False, dags={"dag"})["jobs"]
    assert job.pop("started_ms") > 0
    assert job == {
        "submission_id": "active",
        "job_id": None,
        "status": "RUNNING",
        "ended_ms": None,
        "exit_code": None,
        "error_type": None,
        "task": {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": "3"},
        "url": f"{locked.url}/#/jobs/active",
    }


def test_a_dag_that_the_user_may_not_read_is_not_named(locked: FakeDashboard, watcher: Watcher) -> None:
    submit(locked, "active", **TASK.stamps())
    (job,) = cluster_answer(known(watcher, "locked"), may_stop=False, dags={"another"})["jobs"]
    assert job["task"] is None


def test_the_whole_of_a_cluster(locked: FakeDashboard, watcher: Watcher) -> None:
    locked.nodes[0]["resources_total"] = {"memory": 4.0, "CPU": 2.0, "node:1": 1.0, "fpga": 1.0}
    locked.nodes.append({**locked.nodes[0], "node_id": "other", "state": "DEAD", "is_head_node": False})
    locked.default_outcome = Outcome(ends_after=None, running_after=1e9)
    submit(locked, "waiting")
    answer = cluster_answer(known(watcher, "locked"), may_stop=True, dags=())
    for changing in ("seen", "jobs_seen", "jobs"):
        assert answer.pop(changing) is not None
    assert answer == {
        "conn_id": "locked",
        "health": "healthy",
        "reason": None,
        "dashboard": locked.url,
        "labels": {"site": "lab"},
        "ray_version": "2.60.0",
        "nodes": {"alive": 1, "total": 2},
        "resources": [
            {"name": "CPU", "used": 0.0, "total": 2.0},
            {"name": "memory", "used": 0.0, "total": 4.0},
            {"name": "fpga", "used": 0.0, "total": 1.0},
        ],
        "demands": 0,
        "usage_fault": None,
        "running": 0,
        "pending": 1,
        "active": 1,
        "jobs_fault": None,
        "applications": [{"name": "model", "status": "DEPLOY_FAILED", "route": None}],
        "serve_fault": None,
        "may_stop": True,
    }


def test_the_page_says_what_get_capacity_says(
    locked: FakeDashboard, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Usage(used={"CPU": 1.0, "memory": 1e9}, total={"CPU": 2.0, "memory": 2e9}, pending_demands=0)
    monkeypatch.setattr(Usage, "from_text", lambda _: told)
    # A node that the usage does not cover yet, and a driver that nobody submitted.
    locked.nodes[0]["resources_total"] = {"CPU": 2.0, "memory": 2001e6}
    locked.nodes.append({**locked.nodes[0], "node_id": "new", "is_head_node": False, "resources_total": {"CPU": 8.0}})
    locked.drivers.append({"type": "DRIVER", "submission_id": None, "job_id": "01000000", "status": "RUNNING"})
    submit(locked, "active")
    answer = cluster_answer(known(watcher, "locked"), may_stop=True, dags=())
    capacity = RayHook("locked").get_capacity()
    assert capacity.free == {"CPU": 1.0, "memory": 1001e6}
    assert answer["resources"] == [
        {"name": name, "used": capacity.total[name] - free, "total": capacity.total[name]}
        for name, free in capacity.free.items()
    ]
    assert (answer["running"], answer["pending"]) == (capacity.running_jobs, capacity.pending_jobs) == (1, 0)
    assert answer["active"] == len(answer["jobs"]) == 2


def test_what_the_cluster_does_not_say_is_not_free(locked: FakeDashboard, watcher: Watcher) -> None:
    locked.has_status = False
    answer = cluster_answer(known(watcher, "locked"), may_stop=True, dags=())
    assert {each["used"] for each in answer["resources"]} == {None}
    assert answer["demands"] is None


def test_a_cluster_that_nothing_is_known_of(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Event()
    monkeypatch.setattr(RayHook, "get_config", lambda _: known.wait(30))
    (watch,) = watcher.look({"absent": ()})
    answer = cluster_answer(watch, may_stop=False, dags=())
    known.set()
    assert answer["health"] == "unknown"
    nothing: dict[str, Any] = {"seen": None, "dashboard": None, "running": None, "jobs": [], "resources": []}
    assert {key: answer[key] for key in nothing} == nothing


def test_a_public_address_is_where_people_are_sent(
    locked: FakeDashboard, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"public_url": "https://ray.example/lab"}
    connect(monkeypatch, "public", locked, password=locked.token, extra=extra)
    submit(locked, "active")
    answer = cluster_answer(known(watcher, "public"), may_stop=False, dags=())
    assert answer["dashboard"] == "https://ray.example/lab"
    assert answer["jobs"][0]["url"] == "https://ray.example/lab/#/jobs/active"


def test_a_task_sees_its_own_jobs_only(locked: FakeDashboard, watcher: Watcher) -> None:
    submit(locked, "first-try", **TASK.stamps())
    submit(locked, "second-try", **TASK.stamps())
    submit(locked, "of-another", **Task("dag", "run", "task", 4).stamps())
    answer = task_answer(known(watcher, "locked", "second-try"), TASK, "second-try", may_stop=False)
    assert {job["submission_id"] for job in answer["jobs"]} == {"first-try", "second-try"}
    assert set(answer) == {"conn_id", "health", "seen", "jobs", "missing", "may_stop"}


def test_a_task_does_not_see_the_jobs_of_another_airflow(locked: FakeDashboard, watcher: Watcher) -> None:
    """Its Dag, run and task may have the same ids."""
    submit(locked, "ours", **TASK.stamps())
    submit(locked, "theirs", **{**TASK.stamps(), "airflow_installation": "staging.example"})
    watch = known(watcher, "locked", "ours")
    answer = task_answer(watch, TASK, "ours", may_stop=True)
    assert [job["submission_id"] for job in answer["jobs"]] == ["ours"]
    whole = {job["submission_id"]: job["task"] for job in cluster_answer(watch, may_stop=True, dags={"dag"})["jobs"]}
    assert whole["theirs"] is None
    assert whole["ours"] is not None


def test_a_task_does_not_see_a_job_that_has_the_id_of_its_own(locked: FakeDashboard, watcher: Watcher) -> None:
    """The author's submission_id, which another Airflow has used on the cluster before."""
    submit(locked, "nightly", airflow_nonce="theirs")
    watch = known(watcher, "locked", "nightly")
    assert not task_answer(watch, TASK, "nightly", nonce="ours", may_stop=True)["jobs"]
    assert task_answer(watch, TASK, "nightly", nonce="theirs", may_stop=True)["jobs"]
    # A sensor waits for whatever job has the id.
    assert task_answer(watch, TASK, "nightly", may_stop=True)["jobs"]


def test_a_job_that_its_cluster_has_forgotten(locked: FakeDashboard, watcher: Watcher) -> None:
    answer = task_answer(known(watcher, "locked", "gone"), TASK, "gone", may_stop=False)
    assert (answer["jobs"], answer["missing"]) == ([], "gone")
