"""Dags whose surroundings die; each prints a numbered line per second."""

from __future__ import annotations

from airflow.sdk import dag
from e2e_settings import DEFAULTS, DEFERRED, RETRIED

from airflow_provider_ray.operators.job import RaySubmitJobOperator

COUNT = "import sys, time\nfor number in range(int(sys.argv[1])): print('line', number, flush=True); time.sleep(1)"


@dag(**DEFAULTS, params={"seconds": 15})
def e2e_faults_blocking() -> None:
    """Waited for by a worker."""
    RaySubmitJobOperator(
        task_id="count",
        conn_id="ray_local_1",
        entrypoint=["python", "-c", COUNT, "{{ params.seconds }}"],
        poll_interval=2,
        deferrable=False,
        **RETRIED,
    )


@dag(**DEFAULTS, params={"seconds": 15})
def e2e_faults_deferred() -> None:
    """Waited for by the triggerer."""
    RaySubmitJobOperator(
        task_id="count",
        conn_id="ray_local_2",
        entrypoint=["python", "-c", COUNT, "{{ params.seconds }}"],
        **DEFERRED,
    )


e2e_faults_blocking()
e2e_faults_deferred()
