"""Fan the processing job out, and let other clusters take over the work of one that dies."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag
from processing_pipeline import fan_out, params


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params=params(),
    tags=["ray", "fan-out"],
    doc_md="""
    ### One job, several Ray clusters, one of which may fail

    Runs the pipeline of `ray_processing_fan_out`. When a cluster becomes unavailable or loses its job, `replan` divides
    its tuples among the clusters that succeeded. Every tuple is still in the merged result exactly once.
    """,
)
def ray_processing_take_over() -> None:
    fan_out(redistribute=True)


ray_processing_take_over()
