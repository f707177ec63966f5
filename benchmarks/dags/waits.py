"""Many tasks that wait in the triggerer from the start, and one that measures what that does to its event loop."""

from __future__ import annotations

import os
from typing import Any

import pendulum
from airflow.sdk import DAG, BaseOperator
from airflow.triggers.base import StartTriggerArgs

TRIGGERS: dict[str, tuple[str, dict[str, str]]] = {
    "shared": ("airflow_provider_ray.triggers.job.RayJobTrigger", {"role": "observer"}),
    "one request each": ("benchmarks.plain_trigger.PlainTrigger", {}),
}
JOBS = int(os.environ.get("BENCHMARK_JOBS", "0"))
CLUSTERS = os.environ.get("BENCHMARK_CLUSTERS", "").split()
# No worker resumes what comes back from the triggerer: the pool has no slots.
POOL = "nobody"


class Waiting(BaseOperator):
    """Begins in the triggerer."""

    start_from_trigger = True

    def __init__(self, *, trigger: str, arguments: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(pool=POOL, **kwargs)
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=trigger,
            trigger_kwargs=arguments,
            next_method="execute_complete",
            next_kwargs=None,
            timeout=None,
        )


for way, (trigger, role) in TRIGGERS.items():
    with DAG(
        f"waits_{way.replace(' ', '_')}",
        schedule=None,
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        is_paused_upon_creation=False,
        max_active_tasks=100_000,
    ):
        Waiting(task_id="probe", trigger="benchmarks.plain_trigger.LagProbe", arguments={})
        for cluster in CLUSTERS:
            for number in range(JOBS):
                Waiting(
                    task_id=f"{cluster}-{number}",
                    trigger=trigger,
                    arguments={"conn_id": cluster, "submission_id": f"j{number}", "poll_interval": 10, **role},
                )
