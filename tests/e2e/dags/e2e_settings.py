"""What the Dags of the end-to-end tests have in common."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import XComArg, task

DEFAULTS: dict[str, Any] = {
    "schedule": None,
    "start_date": pendulum.datetime(2026, 1, 1, tz="UTC"),
    "catchup": False,
    "is_paused_upon_creation": False,
}
# Airflow 3.3.2 fails some tasks that are deferred or rescheduled for a moment only; the retry finds its job again.
RETRIED: dict[str, Any] = {"retries": 3, "retry_delay": timedelta(seconds=1)}
DEFERRED: dict[str, Any] = {"deferrable": True, "poll_interval": 2, **RETRIED}


def until(task_id: str, state: str) -> XComArg:
    """A task that waits until another task of its run is in a state, however busy the host is."""

    @task.sensor(task_id=f"until_{task_id}_is_{state}", poke_interval=1, timeout=300)
    def look(ti: Any = None) -> bool:
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[task_id], run_ids=[ti.run_id])
        found: bool = states.get(ti.run_id, {}).get(task_id) == state
        return found

    return look()


FAIL = """
import sys, time
time.sleep(4)
print("about to fail", end=chr(0) + chr(10))
sys.exit(3)
"""
