"""Fan the processing job out over Ray clusters, started by hand."""

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
    ### One job, several Ray clusters

    Choose clusters by connection id and an amount of tuples. Each cluster processes its share with
    `ray_jobs/processing`, serves the summaries with Ray Serve until they are collected, and ends. `merge` holds the
    answers by cluster, and `draw` makes a picture of them: its link *Ray plots*.

    No worker is held while a job runs.
    """,
)
def ray_processing_fan_out() -> None:
    fan_out()


ray_processing_fan_out()
