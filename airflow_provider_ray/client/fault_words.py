"""A cluster's fault in our own words, for places where a server's words must not appear."""

from __future__ import annotations

from airflow_provider_ray.client.errors import RayAnswerTooLarge, RayError, RayNotADashboard, RayRequestError

# What a list of jobs that is slow or too large points to: each list reads all records, and Ray 2.60 keeps them all.
MANY_RECORDS = "the cluster may keep many records of jobs ('airflow ray jobs clean' deletes old ones)"
_ANSWERS = {
    401: "the cluster requires a token, and the connection has none (401)",
    403: "the cluster rejected the connection's token (403)",
}


def in_words(error: RayError | TimeoutError) -> str:
    """What went wrong, without the request and without the server's message, which could repeat what was sent to it."""
    if isinstance(error, TimeoutError):
        return "no response in time"
    if isinstance(error, RayNotADashboard):
        return "the server at this address does not answer as a Ray dashboard does"
    if isinstance(error, RayAnswerTooLarge):
        return "the answer is too large"
    if isinstance(error, RayRequestError) and error.status is not None:
        said = "redirected to another address" if 300 <= error.status < 400 else f"responded with status {error.status}"
        return _ANSWERS.get(error.status, f"the cluster {said}")
    if isinstance(error, RayRequestError):
        # "GET http://...: reason"; what is left is what our own side saw.
        return str(error).partition(": ")[2] or str(error)
    return str(error)
