"""Durations as Dag authors give them: a number of seconds or a ``timedelta``."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import timedelta

from airflow_provider_ray.client.errors import RayConfigError


def seconds(field: str, value: float | str | timedelta, *, zero: bool = False) -> float:
    """A duration in seconds.

    :param field: name of the argument, for the error.
    :param value: a number of seconds, also as text as an environment variable has it, or a ``timedelta``.
    :param zero: accept 0 as well.
    :raises RayConfigError: when the value is negative, infinite, 0 without ``zero``, or not a duration.
    """
    number = _number(value)
    if not 0 <= number < math.inf or (number == 0 and not zero):
        least = "of 0 or more" if zero else "above 0"
        hint = "; durations are not templated" if isinstance(value, str) and "{" in value else ""
        raise RayConfigError(field, repr(value), f"a number of seconds {least}, or a timedelta{hint}")
    return number


def optional_seconds(field: str, value: float | str | timedelta | None) -> float | None:
    """A duration in seconds, or None for no limit.

    :raises RayConfigError: see :func:`seconds`.
    """
    return None if value is None else seconds(field, value)


def later(moment: float | None, duration: float | None) -> float | None:
    """A moment and a duration after it; None, for never, if there is no limit on either."""
    return None if moment is None or duration is None else moment + duration


def _number(value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
