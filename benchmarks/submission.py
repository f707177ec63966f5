"""What submitting a job costs over one raw POST, against a real Ray head, interleaved."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import requests

ROUNDS = 12
CONN_ID = "ray_bench"


def measure() -> dict[str, Any]:
    """Median milliseconds until a job is submitted, by way of submitting it, and the ratios to a raw POST."""
    from airflow_provider_ray.hooks.ray import RayHook
    from airflow_provider_ray.local import local_clusters

    with local_clusters(1) as (cluster,):
        connection = {"conn_type": "ray", "host": cluster.url, "extra": {"serve_url": cluster.serve_url}}
        os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = json.dumps(connection)
        ways: dict[str, Callable[[], str]] = {
            "raw POST": lambda: _raw_post(cluster.url),
            "RayHook.submit_job": lambda: RayHook(CONN_ID).submit_job("true"),
            "RaySubmitJobOperator": _operator,
        }
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS + 1):
            for name, submit in ways.items():
                started = time.perf_counter()
                submission_id = submit()
                samples[name].append((time.perf_counter() - started) * 1000)
                _wait(RayHook(CONN_ID), submission_id)
    medians = {name: statistics.median(rows[1:]) for name, rows in samples.items()}
    return {
        "milliseconds": medians,
        "ratio to a raw POST": {name: value / medians["raw POST"] for name, value in medians.items()},
    }


def _raw_post(url: str) -> str:
    submission_id = f"raw-{uuid4().hex}"
    body = {"entrypoint": "true", "submission_id": submission_id}
    requests.post(f"{url}/api/jobs/", json=body, timeout=30).raise_for_status()
    return submission_id


def _operator() -> str:
    from airflow_provider_ray.operators.job import RaySubmitJobOperator

    task = RaySubmitJobOperator(
        task_id="submit", conn_id=CONN_ID, entrypoint="true", wait_for_completion=False, deferrable=False
    )
    return task.execute(_context())["submission_id"]


def _context() -> Any:
    """What the operator needs of a task, without Airflow's own round trips, which every operator has."""

    class Store(dict[str, Any]):
        set = dict.__setitem__

    class Task:
        dag_id, run_id, task_id, map_index, try_number, max_tries = "bench", "run", "submit", -1, 1, 0

        def xcom_push(self, key: str, value: Any) -> None:
            """Airflow's side is not measured."""

    return {"ti": Task(), "task_state_store": Store()}


def _wait(hook: Any, submission_id: str) -> None:
    from airflow_provider_ray.client.states import is_terminal

    while not is_terminal(hook.get_job(submission_id).status):
        time.sleep(0.2)
