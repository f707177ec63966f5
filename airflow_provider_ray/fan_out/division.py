"""Dividing work among clusters by what they can do: pure arithmetic, with the same result for the same input.

Work is either a range of numbers, of which each cluster gets a piece (only offset and amount are sent), or a list of
items with sizes. Each number and each item goes to exactly one cluster.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.values import RESOURCES, resources

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of ``amount`` numbers that starts at ``offset``."""

    offset: int
    amount: int


def read_weights(weights: Any) -> dict[str, float]:
    """Weights as an author gives them, whose numbers may be text; empty for equal shares.

    :param weights: how much each resource counts, such as ``{"CPU": 0.6, "memory": 0.2, "GPU": 0.2}``; None or ``{}``
        for equal shares.
    :raises RayConfigError: naming the weight.
    """
    read = resources("weights", {} if weights is None else weights)
    if read and not any(read.values()):
        raise RayConfigError("weights", repr(read), "at least one above 0, or none for equal shares")
    return read


def weighted_shares(
    offered: Sequence[Mapping[str, float]], weights: Mapping[str, float], known: Sequence[Mapping[str, float]] = ()
) -> list[float]:
    """The share of each cluster in the work. They add up to 1; all are 0 when no cluster has any of the resources.

    The amount of each resource is divided by the amount on the cluster that has the most of it; these ratios are
    weighted and added up. A resource therefore counts by its weight, whatever its unit.

    :param offered: what each cluster offers: the number of CPUs and GPUs, memory in bytes.
    :param weights: how much each resource counts, see :func:`read_weights`; the weights need not add up to 1.
    :param known: other resources that the clusters have but do not offer now; their names are valid in weights.
    :raises RayConfigError: when the weights cannot work, or name a resource that no cluster knows.
    """
    # Any resource other than Ray's own has to be known to at least one of the clusters.
    names = set(RESOURCES).union(*offered, *known)
    if unknown := sorted(set(weights) - names):
        raise RayConfigError("weights", f"unknown resources {unknown}", f"some of {sorted(names)}")
    largest = {name: max((each.get(name, 0.0) for each in offered), default=0.0) for name in weights}
    scores = [
        math.fsum(weight * each.get(name, 0.0) / largest[name] for name, weight in weights.items() if largest[name] > 0)
        for each in offered
    ]
    total = math.fsum(scores)
    return [score / total if total else 0.0 for score in scores]


def divide_range(amount: int, shares: Sequence[float], offset: int = 0) -> list[Piece]:
    """Cut a range into one piece per cluster, in order and in proportion to their shares.

    What is left over by rounding goes to the clusters with the largest remainders, and in a tie to the earlier cluster.

    :param amount: how many numbers.
    :param shares: share of each cluster, at least 0; a cluster with a share of 0 gets nothing.
    :param offset: the first number.
    :raises RayConfigError: when the amount or the offset is not a whole number of at least 0, or all shares are 0.
    """
    for name, value in (("amount", amount), ("offset", offset)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise RayConfigError(name, repr(value), "a whole number of at least 0")
    _check_shares(shares)
    # Rounded floats would lose or duplicate numbers of a large range; fractions are exact.
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
    """Give each item to one cluster: largest first, to the cluster whose load is then lowest relative to its share.

    The load includes the item, so that a small cluster does not get a large item merely because it is still empty
    (this is list scheduling by longest processing time, on machines of different speeds). In a tie, the earlier item
    or cluster comes first. Each cluster's items keep the order of ``items``.

    :param items: values of any kind.
    :param sizes: size of each item, at least 0, in any unit.
    :param shares: share of each cluster, at least 0; a cluster with a share of 0 gets nothing.
    :raises RayConfigError: when a size is not a number of at least 0, or all shares are 0.
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
    # Larger integers than a float can hold are refused, because they are added to floats.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max
