"""What a page says of a fault."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_ray.client.errors import RayError, RayNotADashboard, RayRequestError

_ANSWERS = {
    401: "the cluster demands a token, and the connection has none (401)",
    403: "the cluster does not accept the connection's token (403)",
    404: "no Ray dashboard answers at this address (404)",
}


def in_words(error: Exception) -> str:
    """A fault in words for a browser, none of them a server's: it could repeat what it was sent."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, AirflowNotFoundException):
        return "the API server does not find the connection"
    if isinstance(error, RayRequestError) and error.status is not None:
        return _ANSWERS.get(error.status, f"the cluster answers with status {error.status}")
    if isinstance(error, RayNotADashboard):
        return "something else than a Ray dashboard answers at this address"
    if isinstance(error, RayRequestError):
        # Without the request: what remains is what our own side saw.
        return str(error).partition(": ")[2]
    return str(error) if isinstance(error, RayError) else f"{type(error).__name__}, see the API server's log"
