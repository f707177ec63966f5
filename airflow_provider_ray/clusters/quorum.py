"""How many of several clusters are required: all, any, or a number."""

from __future__ import annotations

from typing import Any

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.values import whole_number

# The one name of such an argument in operators, sensors and fan-outs.
FIELD = "policy"


def how_many(wanted: Any, number: int, *, what: str = "clusters") -> int:
    """How many of several clusters are enough.

    :param wanted: "all", "any" or a number, which may be a string.
    :param number: how many clusters there are.
    :param what: which clusters these are, for the error.
    :raises RayConfigError: when it is none of these, or more than there are.
    """
    expected = f"'all', 'any' or a number from 1 to {number}, the number of {what}"
    given = _read(wanted, expected)
    if isinstance(given, str):
        return {"all": max(number, 1), "any": 1}[given]
    if given > number:
        raise RayConfigError(FIELD, repr(wanted), expected)
    return given


def check_wanted(wanted: Any, number: int | None) -> None:
    """Reject what :func:`how_many` cannot accept, even if the number of clusters is not known yet.

    :param wanted: see :func:`how_many`.
    :param number: how many clusters there are; None when that is unknown.
    :raises RayConfigError: see :func:`how_many`.
    """
    if number is None:
        _read(wanted, "'all', 'any' or a number of at least 1")
    else:
        how_many(wanted, number)


def _read(wanted: Any, expected: str) -> str | int:
    if isinstance(wanted, str) and wanted in ("all", "any"):
        return wanted
    try:
        number = whole_number(FIELD, wanted)
    except RayConfigError as error:
        raise RayConfigError(FIELD, repr(wanted), expected) from error
    if not number:
        raise RayConfigError(FIELD, repr(wanted), expected)
    return number
