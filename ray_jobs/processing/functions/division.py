"""Round-robin division of the sorted tuples among the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from functions.generator import choices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from functions.parameters import DataParameters

BLOCK = 2**15


def sort_keys(data: DataParameters) -> NDArray[np.unsignedinteger]:
    """Return the rank of each tuple's (priority, length) among all pairs, in the smallest integer type that fits."""
    priorities = [data.priority[extension] for extension in data.extensions]
    priority_rank = np.unique(priorities, return_inverse=True)[1]
    lengths, length_rank = np.unique(data.lengths, return_inverse=True)
    ranks = priority_rank[:, None] * len(lengths) + length_rank
    ranks = ranks.astype(np.min_scalar_type(ranks.max()))
    keys = np.empty(data.amount, ranks.dtype)
    for start in range(0, data.amount, BLOCK):
        stop = min(start + BLOCK, data.amount)
        keys[start:stop] = ranks[choices(np.arange(start, stop, dtype=np.uint64) + np.uint64(data.offset), data)]
    return keys


def division_round_robin(data: DataParameters, number: int) -> list[NDArray[np.uint32]]:
    """Sort the tuples by (priority, length) and deal them to the workers one by one.

    :param data: the tuples to divide.
    :param number: number of workers.
    :return: one array per worker; a tuple is stored as its seed minus the offset.
    """
    # The sort is stable and the keys are one or two bytes wide; for these NumPy uses a linear-time radix sort.
    order = np.argsort(sort_keys(data), kind="stable")
    return [order[worker::number].astype(np.uint32) for worker in range(number)]
