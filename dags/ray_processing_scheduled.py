"""The processing job on all Ray clusters, every night."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag
from processing_pipeline import fan_out, params


@dag(
    schedule="0 3 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    params=params(),
    tags=["ray", "fan-out", "scheduled"],
    doc_md="""
    ### The nightly run

    Runs the pipeline of `ray_processing_fan_out` with the defaults of its trigger form, every night at 03:00 UTC.
    """,
)
def ray_processing_scheduled() -> None:
    fan_out()


ray_processing_scheduled()
