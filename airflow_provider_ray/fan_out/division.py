"""Work divided over clusters by what they can do: pure arithmetic, the same result for the same input.

Two forms: a range of numbers, of which each cluster gets a piece (nothing but offset and amount is shipped), and items
with a size. Each number and each item goes to exactly one cluster.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from airflow_provider_ray.client.errors import RayConfigError

T = TypeVar("T")

# What every Ray cluster may have; any other resource has to be known to one of the clusters.
COMMON_RESOURCES = frozenset({"CPU", "GPU", "memory", "object_store_memory"})


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of numbers: ``amount`` of them from ``offset`` on."""

    offset: int
    amount: int


def check_weights(weights: Any) -> None:
    """Refuse weights that cannot divide anything.

    :param weights: how much each resource counts, such as ``{"CPU": 0.6, "memory": 0.2, "GPU": 0.2}``.
    :raises RayConfigError: naming the weight.
    """
    expected = "a number of at least 0 for each resource, such as {'CPU': 0.6, 'memory': 0.2, 'GPU': 0.2}"
    if not isinstance(weights, Mapping):
        raise RayConfigError("weights", repr(weights), expected)
    for resource, weight in weights.items():
        if not isinstance(resource, str) or not _is_amount(weight):
            raise RayConfigError("weights", f"{resource!r}: {weight!r}", expected)
    if not sum(weights.values()):
        raise RayConfigError("weights", repr(dict(weights)), "at least one above 0")


def weighted_shares(
    resources: Sequence[Mapping[str, float]], weights: Mapping[str, float], known: Sequence[Mapping[str, float]] = ()
) -> list[float]:
    """The share of each cluster in the work; they sum to 1, or all are 0 when no cluster has anything of the resources.

    Each resource is divided by that of the cluster which has most of it, weighted and summed; so a resource counts by
    its weight, whatever its unit.

    :param resources: what each cluster offers: CPU and GPU in numbers, memory in bytes.
    :param weights: how much each resource counts; it need not sum to 1.
    :param known: further resources that count as known, though nothing of them is offered.
    :raises RayConfigError: when the weights cannot work, or name a resource that no cluster knows.
    """
    check_weights(weights)
    names = COMMON_RESOURCES.union(*resources, *known)
    if unknown := sorted(set(weights) - names):
        raise RayConfigError("weights", f"unknown resources {unknown}", f"some of {sorted(names)}")
    largest = {name: max((each.get(name, 0.0) for each in resources), default=0.0) for name in weights}
    scores = [
        math.fsum(weight * each.get(name, 0.0) / largest[name] for name, weight in weights.items() if largest[name] > 0)
        for each in resources
    ]
    total = math.fsum(scores)
    return [score / total if total else 0.0 for score in scores]


def divide_range(amount: int, shares: Sequence[float], offset: int = 0) -> list[Piece]:
    """Cut a range into one piece per cluster, in their order, as long as their shares say.

    What rounding leaves over goes to the largest remainders, on a tie to the earlier cluster.

    :param amount: how many numbers.
    :param shares: of each cluster, at least 0; a share of 0 gets nothing.
    :param offset: the first number.
    :raises RayConfigError: when the amount or the offset is not a whole number of at least 0, or all shares are 0.
    """
    for name, value in (("amount", amount), ("offset", offset)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise RayConfigError(name, repr(value), "a whole number of at least 0")
    _check_shares(shares)
    # Fractions: rounded floats would lose or double some of a large amount.
    total = sum(map(Fraction, shares))
    exact = [amount * Fraction(share) / total for share in shares]
    amounts = [math.floor(each) for each in exact]
    by_remainder = sorted(range(len(shares)), key=lambda index: amounts[index] - exact[index])
    for index in by_remainder[: amount - sum(amounts)]:
        amounts[index] += 1
    pieces = []
    for each in amounts:
        pieces.append(Piece(offset, each))
        offset += each
    return pieces


def divide_items(items: Sequence[T], sizes: Sequence[float], shares: Sequence[float]) -> list[list[T]]:
    """Give each item to one cluster: heaviest first, to the one whose load is then lowest relative to its share.

    The load counts with the item, so that a small cluster does not get a heavy item because it is still empty (list
    scheduling by longest processing time, on machines of different speed). Ties go to the earlier item and cluster;
    what a cluster gets is in the order of ``items``.

    :param items: anything.
    :param sizes: of each item, at least 0; the unit does not matter.
    :param shares: of each cluster, at least 0; a share of 0 gets nothing.
    :raises RayConfigError: when a size cannot work, or all shares are 0.
    """
    if len(items) != len(sizes):
        raise RayConfigError("sizes", f"{len(sizes)} of them", f"one for each of the {len(items)} items")
    if wrong := [size for size in sizes if not _is_amount(size)]:
        raise RayConfigError("sizes", repr(wrong[0]), "numbers of at least 0")
    _check_shares(shares)
    loads = {index: 0.0 for index, share in enumerate(shares) if share}
    given: list[list[int]] = [[] for _ in shares]
    for number in sorted(range(len(items)), key=lambda number: -sizes[number]):
        lowest = min(loads, key=lambda index: (loads[index] + sizes[number]) / shares[index])
        loads[lowest] += sizes[number]
        given[lowest].append(number)
    return [[items[number] for number in sorted(numbers)] for numbers in given]


def _check_shares(shares: Sequence[float]) -> None:
    if wrong := [share for share in shares if not _is_amount(share)]:
        raise RayConfigError("shares", repr(wrong[0]), "numbers of at least 0")
    if not any(shares):
        raise RayConfigError("shares", repr(list(shares)), "at least one above 0")


def _is_amount(value: Any) -> bool:
    # No integer beyond what a float can hold: it would be added to floats.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max
