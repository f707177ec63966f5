"""Why a task of a fan-out failed, kept as an XCom for the merged result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import redact

from airflow_provider_ray.client.json_text import sanitized

if TYPE_CHECKING:
    from airflow.sdk import Context

# XCom of a task that has failed for good.
FAULT_KEY = "ray_fault"
FAULT_CHARACTERS = 2000


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


def without_secrets(error: object) -> str:
    """The text of an error for an XCom. Airflow masks and cleans logs, but not XComs."""
    return str(sanitized(str(redact(str(error)))))[:FAULT_CHARACTERS]
