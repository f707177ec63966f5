"""Fan the processing job out, and let clusters take over what a dead one leaves undone."""

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
    ### One job, several Ray clusters, one of which may die

    The pipeline of `ray_processing_fan_out`. When a cluster becomes unavailable or loses its job, `replan` divides its
    tuples over the clusters that succeeded, and each tuple is in the merged result once all the same.
    """,
)
def ray_processing_take_over() -> None:
    fan_out(redistribute=True)


ray_processing_take_over()
