"""Durations: seconds or a timedelta."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_ray.client.durations import optional_seconds, seconds
from airflow_provider_ray.client.errors import RayConfigError


@pytest.mark.parametrize(
    ("given", "expected"), [(5, 5), (0.5, 0.5), ("60", 60), ("0.5", 0.5), (timedelta(minutes=2), 120.0)]
)
def test_seconds_and_timedeltas(given: Any, expected: float) -> None:
    assert seconds("timeout", given) == optional_seconds("timeout", given) == expected


@pytest.mark.parametrize(
    "given",
    [
        "soon",
        "",
        "inf",
        "{{ params.timeout }}",
        True,
        None,
        [],
        0,
        -1,
        math.nan,
        math.inf,
        timedelta(0),
        timedelta(seconds=-1),
    ],
    ids=repr,
)
def test_what_is_no_duration_is_named(given: Any) -> None:
    with pytest.raises(RayConfigError) as caught:
        seconds("timeout", given)
    assert (caught.value.field, caught.value.got) == ("timeout", repr(given))
    assert caught.value.expected.startswith("a number of seconds above 0, or a timedelta")
    assert ("not templated" in caught.value.expected) == (given == "{{ params.timeout }}")


def test_zero_where_it_makes_sense() -> None:
    assert seconds("timeout", 0, zero=True) == seconds("timeout", timedelta(0), zero=True) == 0
    with pytest.raises(
        RayConfigError, match="timeout: got -1; expected a number of seconds of 0 or more, or a timedelta"
    ):
        seconds("timeout", -1, zero=True)


def test_no_limit() -> None:
    assert optional_seconds("timeout", None) is None
    with pytest.raises(RayConfigError, match="timeout: got 0;"):
        optional_seconds("timeout", 0)
