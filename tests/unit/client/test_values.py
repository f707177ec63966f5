"""Values as authors give them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pendulum
import pytest

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.values import as_json, number, plain, resources, string, strings, whole_number


class Lazy(Sequence[Any]):
    """A sequence that is no list, as Airflow passes the XComs of a mapped task."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __repr__(self) -> str:
        return f"Lazy{self.items}"

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


@dataclass
class Point:
    x: float
    where: Path


class Pair(NamedTuple):
    first: int
    second: str


class Color(Enum):
    RED = "red"


class Text(StrEnum):
    A = "a"


class Level(IntEnum):
    HIGH = 3


UUID_TEXT = "12345678-1234-5678-1234-567812345678"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Lazy("a", Lazy(1)), ["a", [1]]),
        ((1, (2,)), [1, [2]]),
        (range(2), [0, 1]),
        (MappingProxyType({"a": (1,)}), {"a": [1]}),
        (Pair(1, "b"), [1, "b"]),
        (Point(0.5, Path("/data")), {"x": 0.5, "where": "/data"}),
        (PurePosixPath("a/b"), "a/b"),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
        (pendulum.datetime(2026, 1, 2, 3), "2026-01-02T03:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (timedelta(minutes=1.5), 90.0),
        (pendulum.duration(minutes=1), 60.0),
        (UUID(UUID_TEXT), UUID_TEXT),
        (Decimal("0.1"), 0.1),
        (Decimal("3.00"), 3),
        (Decimal(10**30), 10**30),
        (Color.RED, "red"),
        ({Text.A: Level.HIGH}, {"a": 3}),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    ],
    ids=repr,
)
def test_what_becomes_json(given: Any, expected: Any) -> None:
    assert plain("parameters", {"at": [given]}) == {"at": [expected]}
    assert json.loads(as_json("parameters", given)) == expected


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"a": [{1, 2}]}, r"a set has no order; a sorted list has one, at \['a'\]\[0\]"),
        ({"a": frozenset("x")}, r"a frozenset has no order"),
        ({"a": b"x"}, r"bytes is not JSON serializable, at \['a'\]"),
        ({"a": object()}, r"object is not JSON serializable, at \['a'\]"),
        ({"a": Point}, r"type is not JSON serializable"),
        ({"a": (part for part in "x")}, r"generator is not JSON serializable"),
        ({"a": {1: 2}}, r"key 1 is a int, not a string, at \['a'\]"),
        ({"a": Decimal("0.1234567890123456789")}, r"more digits than a number in JSON keeps; pass it as a string"),
        (Decimal("NaN"), r"Out of range float"),
        (np.float64("inf"), r"Out of range float"),
    ],
)
def test_what_is_no_json_is_named_with_its_place(given: Any, reason: str) -> None:
    with pytest.raises(RayConfigError, match=rf"^parameters: got a value that is not JSON \(.*{reason}"):
        as_json("parameters", given)


def test_json_that_contains_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(RayConfigError, match=r"^parameters: "):
        as_json("parameters", loop)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("a", "a"), (5, "5"), (Path("a/b"), "a/b"), (UUID(UUID_TEXT), UUID_TEXT), (Color.RED, "red"), (np.int64(7), "7")],
    ids=repr,
)
def test_strings_that_only_one_text_can_mean(given: Any, expected: str) -> None:
    assert string("metadata", given) == expected
    assert strings("metadata", {"a": given}) == {"a": expected}


@pytest.mark.parametrize("given", [True, 3.1, None, ["a"], {}, b"a", Decimal("3.10")], ids=repr)
def test_strings_that_could_have_been_another_text(given: Any) -> None:
    """A natively rendered "3.10" arrives as 3.1, and "True" as True."""
    with pytest.raises(RayConfigError) as caught:
        strings("metadata", {"a": given})
    assert caught.value.field == "metadata['a']"
    assert caught.value.got == f"a value of type {type(given).__name__}"
    assert "str(...)" in caught.value.expected
    assert "\"'{{ ... }}'\"" in caught.value.expected


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (None, None), ("", None), (0, 0), ("0.5", 0.5), ("2", 2), (2.0, 2), (1e9, 10**9), (" 3 ", 3), ("1e3", 1000),
        ("9007199254740993", 2**53 + 1), (Decimal("0.5"), 0.5), (np.int32(4), 4),
    ],
)  # fmt: skip
def test_numbers(value: Any, amount: float | None) -> None:
    assert number("entrypoint_num_cpus", value) == amount
    assert type(number("entrypoint_num_cpus", value)) is type(amount)


@pytest.mark.parametrize("value", [-1, "-0.5", "many", True, math.nan, "inf", [1], {}, "9" * 5000, "{{ params.n }}"])
def test_amounts_that_are_none(value: Any) -> None:
    with pytest.raises(RayConfigError, match=r"^entrypoint_num_cpus: got .*; expected a number of 0 or more"):
        number("entrypoint_num_cpus", value)


@pytest.mark.parametrize("value", ["1.5", 0.5, -1, "many", True])
def test_amounts_that_are_not_whole(value: Any) -> None:
    with pytest.raises(RayConfigError, match=r"^entrypoint_memory: got .*; expected a (whole )?number of 0 or more"):
        whole_number("entrypoint_memory", value)
    assert whole_number("entrypoint_memory", "2.0") == 2


def test_resources_by_name() -> None:
    given = {"CPU": "4", "memory": 8e9, "worker": "0.5", "tpus": 1}
    assert resources("free_resources", given) == {"CPU": 4, "memory": 8 * 10**9, "worker": 0.5, "tpus": 1}


@pytest.mark.parametrize("name", ["cpu", "CPUs", "num_cpus", "Gpu", "num_gpus", "Memory", "MEMORY"])
def test_rays_own_resources_misspelt(name: str) -> None:
    with pytest.raises(RayConfigError, match=rf"^free_resources: got '{name}'; expected '(CPU|GPU|memory)', as Ray"):
        resources("free_resources", {name: 1})


@pytest.mark.parametrize("given", [3, "CPU", ["CPU"], {"": 1}, {1: 1}, {"CPU": None}, {"CPU": ""}, {"CPU": "x"}])
def test_what_is_no_resources(given: Any) -> None:
    with pytest.raises(RayConfigError, match=r"^free_resources(\['CPU'\])?: got "):
        resources("free_resources", given)
