"""Seconds of worker slot that a job of a minute holds, blocking and deferred, on a real Airflow and a real Ray head."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

SECONDS = 60
LOOK_SECONDS = 0.1
HOLDING = ("queued", "running")
ENDED = ("success", "failed", "upstream_failed")


def measure() -> dict[str, Any]:
    """Seconds in which each task held a slot, from many looks at its state; and their ratio."""
    from airflow_provider_ray.local import connections, local_clusters
    from dev.airflow_stack import AirflowStack

    bundles = {"benchmark": Path(__file__).parent / "dags"}
    with (
        tempfile.TemporaryDirectory() as home,
        local_clusters(1) as clusters,
        AirflowStack(Path(home), bundles) as airflow,
    ):
        airflow.wait_until_healthy()
        airflow.api.add_connections(connections(clusters))
        airflow.wait_for_dags(["slots"])
        run_id = airflow.api.trigger("slots", {"seconds": SECONDS})
        held = _watch(airflow, run_id)
    return {"seconds held": held, "blocking / deferred": held["blocking"] / held["deferred"]}


def _watch(airflow: Any, run_id: str) -> dict[str, float]:
    held = {"blocking": 0.0, "deferred": 0.0}
    before = time.monotonic()
    while True:
        tasks = airflow.api.task_instances("slots", run_id)
        now = time.monotonic()
        for task in tasks:
            if task["state"] in HOLDING:
                held[task["task_id"]] += now - before
        before = now
        states = [task["state"] for task in tasks]
        if tasks and all(state in ENDED for state in states):
            break
        time.sleep(LOOK_SECONDS)
    if states != ["success", "success"]:
        raise RuntimeError(f"The tasks ended {states}, which is no measurement.")
    return held
