"""Methods of calls to Serve, apart from the client, so that a Dag file can check them without loading aiohttp."""

from __future__ import annotations

from typing import Any

from airflow_provider_ray.client.errors import RayConfigError

METHODS = ("GET", "POST", "PUT", "DELETE")


def check_method(method: Any) -> None:
    """Reject a method that a call cannot have; case does not matter.

    :raises RayConfigError: naming the methods that there are.
    """
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise RayConfigError("method", repr(method), f"one of {', '.join(METHODS)}")
