"""A job of a given length, waited for in both modes."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_ray.operators.job import RaySubmitJobOperator


@dag(schedule=None, params={"seconds": 60})
def slots() -> None:
    for deferrable in (False, True):
        RaySubmitJobOperator(
            task_id="deferred" if deferrable else "blocking",
            conn_id="ray_local_1",
            entrypoint="sleep {{ params.seconds }}",
            deferrable=deferrable,
            retries=2,
        )


slots()
