"""A cluster's fault in our own words, for places where a server's words must not appear."""

from __future__ import annotations

from airflow_provider_ray.client.errors import RayError, RayNotADashboard, RayRequestError

_ANSWERS = {
    401: "the cluster requires a token, and the connection has none (401)",
    403: "the cluster rejected the connection's token (403)",
}


def in_words(error: RayError | TimeoutError) -> str:
    """What went wrong, without the request and without the server's message, which could repeat what was sent to it."""
    if isinstance(error, TimeoutError):
        return "no response in time"
    if isinstance(error, RayRequestError) and error.status is not None:
        said = "redirected to another address" if 300 <= error.status < 400 else f"responded with status {error.status}"
        return _ANSWERS.get(error.status, f"the cluster {said}")
    if isinstance(error, RayNotADashboard):
        return "the server at this address is not a Ray dashboard"
    if isinstance(error, RayRequestError):
        # "GET http://...: reason"; what is left is what our own side saw.
        return str(error).partition(": ")[2] or str(error)
    return str(error)
