"""Values as authors give them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.values import as_json, number, whole_number


def test_json_that_contains_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(RayConfigError, match=r"^parameters: "):
        as_json("parameters", loop)


@pytest.mark.parametrize(
    ("value", "amount"),
    [(None, None), ("", None), (0, 0), ("0.5", 0.5), ("2", 2), (2.0, 2), (1e9, 10**9)],
)
def test_numbers(value: Any, amount: float | None) -> None:
    assert number("entrypoint_num_cpus", value) == amount
    assert type(number("entrypoint_num_cpus", value)) is type(amount)


@pytest.mark.parametrize("value", [-1, "-0.5", "many", True, math.nan, "inf", [1], {}])
def test_amounts_that_are_none(value: Any) -> None:
    with pytest.raises(RayConfigError, match=r"^entrypoint_num_cpus: got .*; expected a number of 0 or more"):
        number("entrypoint_num_cpus", value)


@pytest.mark.parametrize("value", ["1.5", 0.5, -1, "many", True])
def test_amounts_that_are_not_whole(value: Any) -> None:
    with pytest.raises(RayConfigError, match=r"^entrypoint_memory: got .*; expected a (whole )?number of 0 or more"):
        whole_number("entrypoint_memory", value)
    assert whole_number("entrypoint_memory", "2.0") == 2
