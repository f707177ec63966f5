"""All, any, or some of several clusters."""

from __future__ import annotations

from typing import Any

from airflow_provider_ray.client.api.job_spec import whole_number
from airflow_provider_ray.client.errors import RayConfigError


def how_many(wanted: Any, number: int, *, field: str, what: str = "clusters") -> int:
    """How many of several clusters are required.

    :param wanted: "all", "any" or a number, also as text.
    :param number: how many clusters there are.
    :param field: the author's name for ``wanted``, for the error.
    :param what: the clusters in words, for the error.
    :raises RayConfigError: when it is none of these, or more than there are.
    """
    words = {"all": max(number, 1), "any": 1}
    if isinstance(wanted, str) and wanted in words:
        return words[wanted]
    expected = f"'all', 'any' or a number from 1 to {number} (the number of {what})"
    try:
        enough = whole_number(field, wanted)
    except RayConfigError as error:
        raise RayConfigError(field, repr(wanted), expected) from error
    if enough is None or not 1 <= enough <= number:
        raise RayConfigError(field, repr(wanted), expected)
    return enough
