"""Why a task of a fan-out failed: kept as an XCom for the merged result, and told to the author once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import redact

from airflow_provider_ray.client.json_text import sanitized

if TYPE_CHECKING:
    from airflow.sdk import Context

# XCom of a task that has failed for good.
FAULT_KEY = "ray_fault"
FAULT_CHARACTERS = 2000
# The tasks of one cluster, in their order.
CLUSTER_TASKS = ("submit", "collect", "release", "wait")
CLUSTER_GROUPS = ("on_cluster", "taken_over")


def note_fault(context: Context) -> None:
    """Record why a task failed, for the merged result. This is an ``on_failure_callback``."""
    from airflow_provider_ray.client.errors import RayClusterUnavailable, RayJobError, RayJobLost

    error = context.get("exception")
    job = error.job if isinstance(error, RayJobError) else None
    fault = {
        "error_type": type(error).__name__,
        "message": without_secrets(error),
        "is_the_clusters": isinstance(error, RayClusterUnavailable | RayJobLost),
        "seconds": job.seconds if job else None,
    }
    context["ti"].xcom_push(key=FAULT_KEY, value=fault)


def callbacks(fields: Mapping[str, Any]) -> list[Callable[[Context], Any]]:
    """The author's own ``on_failure_callback``, which may be one or several."""
    own = fields.get("on_failure_callback") or []
    return list(own) if isinstance(own, list | tuple) else [own]


@dataclass(frozen=True, slots=True)
class UnlessTold:
    """A callback of the author for a task that mostly fails because an earlier one did: it is called once per cause.

    :param callback: the author's.
    """

    callback: Callable[[Context], Any]

    def __call__(self, context: Context) -> None:
        """Call the author's callback if this is the first task that fails."""
        if not _is_told(context["ti"]):
            self.callback(context)


def _is_told(ti: Any) -> bool:
    """Whether an earlier task has failed for good; its callbacks were called."""
    group, _, name = ti.task_id.rpartition(".")
    if name in CLUSTER_TASKS:
        earlier = [f"{group}.{each}" for each in CLUSTER_TASKS[: CLUSTER_TASKS.index(name)]]
        return any(ti.xcom_pull(task_ids=earlier, key=FAULT_KEY, map_indexes=ti.map_index))
    on_clusters = [f"{each}.{cluster_task}" for each in CLUSTER_GROUPS for cluster_task in CLUSTER_TASKS]
    earlier = [f"{group}.{each}" for each in ("plan", "replan", *on_clusters)]
    return any(ti.xcom_pull(task_ids=earlier, key=FAULT_KEY))


def without_secrets(error: object) -> str:
    """The text of an error for an XCom. Airflow masks and cleans logs, but not XComs."""
    return str(sanitized(str(redact(str(error)))))[:FAULT_CHARACTERS]
