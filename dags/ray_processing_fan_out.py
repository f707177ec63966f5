"""Fan the processing job out over Ray clusters, triggered manually."""

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

    Choose the clusters, by connection id, and the number of tuples. Each cluster processes its share with
    `ray_jobs/processing`, serves the summaries with Ray Serve until they have been collected, and then ends its job.
    The XCom of `merge` holds the answers by cluster. `draw` draws a picture of them; its link *Ray plots* opens it.

    No Airflow worker is occupied while a job runs.
    """,
)
def ray_processing_fan_out() -> None:
    fan_out()


ray_processing_fan_out()
