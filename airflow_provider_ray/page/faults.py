"""What the page says about a fault."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_ray.client import faults
from airflow_provider_ray.client.errors import RayError


def in_words(error: Exception) -> str:
    """A fault in words for a browser, none of them a server's."""
    if isinstance(error, RayError | TimeoutError):
        return faults.in_words(error)
    if isinstance(error, AirflowNotFoundException):
        return "the API server cannot find the connection"
    return f"unexpected {type(error).__name__}; see the API server's log"
