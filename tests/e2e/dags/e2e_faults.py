"""Dags whose surroundings die; each prints a numbered line per second."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task
from e2e_settings import DEFAULTS, DEFERRED, RETRIED

from airflow_provider_ray.operators.job import RaySubmitJobOperator

COUNT = "import sys, time\nfor number in range(int(sys.argv[1])): print('line', number, flush=True); time.sleep(1)"
AWKWARD = "import os; os.write(1, b'before\\n\\xff\\xfe\\n' + b'x' * 5_000_000 + b'\\nafter\\n')"
CLUSTERS = [f"ray_local_{number}" for number in (1, 2, 3)]


def count(**options: Any) -> None:
    RaySubmitJobOperator(
        task_id="count",
        conn_id="{{ params.conn_id }}",
        entrypoint=["python", "-c", COUNT, "{{ params.seconds }}"],
        **options,
    )


@dag(**DEFAULTS, params={"seconds": 15, "conn_id": "ray_local_1"})
def e2e_faults_blocking() -> None:
    """Waited for by a worker."""
    count(deferrable=False, poll_interval=2, **RETRIED)


@dag(**DEFAULTS, params={"seconds": 15, "conn_id": "ray_local_2"})
def e2e_faults_deferred() -> None:
    """Waited for by the triggerer."""
    count(**DEFERRED)


@dag(**DEFAULTS, params={"seconds": 15, "conn_id": "ray_local_1"})
def e2e_faults_late() -> None:
    """Airflow's own limit of a worker's time."""
    count(deferrable=False, poll_interval=2, execution_timeout=timedelta(seconds=10))


@dag(**DEFAULTS, params={"seconds": 15, "conn_id": "ray_local_1"})
def e2e_faults_once() -> None:
    """Without a retry."""
    count(deferrable=False, poll_interval=2)


@dag(**DEFAULTS, params={"submission_id": "taken"})
def e2e_faults_taken() -> None:
    """An id that another job has."""
    RaySubmitJobOperator(
        task_id="taken", conn_id="ray_local_1", entrypoint="true", submission_id="{{ params.submission_id }}"
    )


@dag(**DEFAULTS)
def e2e_faults_awkward() -> None:
    """A driver that writes what is not UTF-8, and a line of 5 MB."""
    RaySubmitJobOperator(task_id="write", conn_id="ray_local_1", entrypoint=["python", "-c", AWKWARD], **DEFERRED)


@dag(**DEFAULTS, params={"seconds": 30})
def e2e_faults_fail_over() -> None:
    """A job for whichever cluster there is."""
    RaySubmitJobOperator(
        task_id="count",
        conn_id=["doomed", "ray_local_1"],
        entrypoint=["python", "-c", COUNT, "{{ params.seconds }}"],
        **DEFERRED,
    )


@dag(**DEFAULTS)
def e2e_faults_limited() -> None:
    """More jobs than a cluster takes at a time, in both modes."""
    for name, mode in (("blocking", {"deferrable": False, "poll_interval": 2, **RETRIED}), ("deferred", DEFERRED)):
        RaySubmitJobOperator.partial(task_id=name, conn_id="doomed_limited", **mode).expand(entrypoint=["sleep 4"] * 4)


@dag(**DEFAULTS, params={"number": 200}, max_active_tasks=200)
def e2e_faults_many() -> None:
    """Many jobs over all clusters, every other one deferred."""

    @task
    def clusters(params: Any = None) -> list[str]:
        return [CLUSTERS[number % len(CLUSTERS)] for number in range(params["number"] // 2)]

    for name, mode in (("blocking", {"deferrable": False, "poll_interval": 2}), ("deferred", DEFERRED)):
        RaySubmitJobOperator.partial(
            task_id=name, entrypoint="sleep 3; echo done", **{**RETRIED, **mode, "retries": 30}
        ).expand(conn_id=clusters.override(task_id=f"clusters_{name}")())


e2e_faults_blocking()
e2e_faults_deferred()
e2e_faults_late()
e2e_faults_once()
e2e_faults_fail_over()
e2e_faults_limited()
e2e_faults_taken()
e2e_faults_awkward()
e2e_faults_many()
