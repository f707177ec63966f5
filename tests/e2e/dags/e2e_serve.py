"""A Dag that calls good and bad routes of a Serve application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.sdk import chain, dag
from e2e_settings import DEFAULTS, RETRIED, until

from airflow_provider_ray.operators.job import RaySubmitJobOperator
from airflow_provider_ray.operators.serve import RayServeOperator

CONN_ID = "ray_local_3"
SERVE_APP = Path(__file__).parents[1] / "serve_app"


@dag(**DEFAULTS, params={"port": 8000})
def e2e_serve() -> None:
    """The deferred call waits for the application; all others come when it is there."""
    submit = RaySubmitJobOperator(
        task_id="submit",
        conn_id=CONN_ID,
        entrypoint=["python", "answers.py"],
        parameters={"port": "{{ params.port }}"},
        runtime_env={"working_dir": str(SERVE_APP)},
        wait_for_completion=False,
    )
    early = call("early", "/json", deferrable=True, poll_interval=2, **RETRIED)
    others = [
        call("blocking", "/json"),
        call("ready", "/json", deferrable=True),
        call("echo", "/echo", method="POST", data={"run": "{{ run_id }}"}),
        call("text", "/text"),
        call("large", "/large", max_answer_bytes=1000),
        call("broken", "/broken", deferrable=True),
        call("missing", "/missing"),
        RayServeOperator(task_id="by_route", conn_id=CONN_ID, path="/answers/json"),
    ]
    release = call("release", "/release", method="POST", trigger_rule="all_done")
    chain(until("early", "deferred"), submit, others, release)
    chain(early, others)
    RayServeOperator(
        task_id="nobody",
        conn_id=CONN_ID,
        application="nobody",
        timeout=5,
        deferrable=True,
        poll_interval=1,
        **RETRIED,
    )


def call(task_id: str, path: str, **options: Any) -> RayServeOperator:
    return RayServeOperator(task_id=task_id, conn_id=CONN_ID, application="answers", path=path, **options)


e2e_serve()
