"""Mean and variance of batches of tuples, computed on entire arrays and without generating the names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from functions.division import BLOCK
from functions.generator import choices, stem_letters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from functions.parameters import DataParameters

VALUES = ("seed", "name", "priority", "length")

# One row per batch; each value is a pair of mean and variance.
BATCH = np.dtype(
    [("worker", "u4"), ("actor", "u4"), ("batch", "u4"), ("count", "u4"), *((value, "f8", (2,)) for value in VALUES)]
)

# One row per tuple; letters are numbered from the middle of the alphabet, so that squares lose no digits.
TUPLE = np.dtype([("priority", "i8"), ("length", "i4"), ("letters", "i4"), ("sum", "i4"), ("squares", "i8")])
MIDDLE = 13


def letter_numbers(text: str) -> list[int]:
    """Return the position in the alphabet of each letter from a to z (a is 1), ignoring other characters."""
    return [ord(c.lower()) - ord("a") + 1 for c in text if c.isascii() and c.isalpha()]


def tuple_columns(seeds: NDArray[np.uint64], data: DataParameters) -> NDArray[np.void]:
    """Return the columns that the statistics need, computed in blocks that fit into the CPU cache."""
    columns = np.empty(len(seeds), TUPLE)
    for start in range(0, len(seeds), BLOCK):
        fill_columns(columns[start : start + BLOCK], seeds[start : start + BLOCK], data)
    return columns


def fill_columns(columns: NDArray[np.void], seeds: NDArray[np.uint64], data: DataParameters) -> None:
    extension, length = choices(seeds, data)
    lengths = np.array(data.lengths)[length]
    constants = extension_constants(data)[extension]
    letters, squares = np.zeros(len(seeds), np.int32), np.zeros(len(seeds), np.int32)
    for position, letter in enumerate(stem_letters(seeds, max(data.lengths))):
        number = np.where(position < lengths, letter.astype(np.int32) + (1 - MIDDLE), 0)
        letters += number
        squares += number * number
    columns["priority"], columns["length"] = constants[:, 0], lengths
    columns["letters"] = constants[:, 1] + lengths
    columns["sum"], columns["squares"] = constants[:, 2] + letters, constants[:, 3] + squares


def extension_constants(data: DataParameters) -> NDArray[np.int64]:
    """Return priority, number of letters, their sum and their sum of squares for every extension."""
    rows = []
    for extension in data.extensions:
        numbers = [number - MIDDLE for number in letter_numbers(extension)]
        rows.append([data.priority[extension], len(numbers), sum(numbers), sum(n * n for n in numbers)])
    return np.array(rows)


def mean_and_variance(values: NDArray[Any], starts: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return mean and population variance of consecutive batches, in two passes because seeds are large."""
    means = np.add.reduceat(values, starts, dtype=np.int64) / counts
    deviations = values - np.repeat(means, counts)
    return np.stack([means, np.add.reduceat(deviations * deviations, starts) / counts], axis=1)


def batch_statistics(tuples: NDArray[np.uint32], data: DataParameters) -> NDArray[np.void]:
    """Return the statistics of consecutive batches of `tuple_batch` tuples; the last batch may be smaller.

    :param tuples: seeds minus the offset, in the order of the division.
    :param data: how tuples are generated and batched.
    :return: one BATCH row per batch; the caller fills in worker, actor and batch.
    """
    starts = np.arange(0, len(tuples), data.tuple_batch)
    counts = np.diff(starts, append=len(tuples))
    columns = tuple_columns(tuples.astype(np.uint64) + np.uint64(data.offset), data)
    rows = np.zeros(len(starts), BATCH)
    rows["count"] = counts
    rows["seed"] = mean_and_variance(tuples, starts, counts) + np.array([data.offset, 0])
    rows["priority"] = mean_and_variance(columns["priority"], starts, counts)
    rows["length"] = mean_and_variance(columns["length"], starts, counts)
    letters, sums, squares = (
        np.add.reduceat(columns[key], starts, dtype=np.int64) for key in ("letters", "sum", "squares")
    )
    means = sums / letters
    rows["name"] = np.stack([means + MIDDLE, squares / letters - means * means], axis=1)
    return rows


def summarize(worker_index: int, actor_index: int, rows: NDArray[np.void], stats_batch: int) -> list[dict[str, Any]]:
    """Group batches into summaries of `stats_batch` batches; the last summary may be smaller.

    :param worker_index: index of the requesting collector, from 1.
    :param actor_index: index of the answering Provider, from 1.
    :param rows: statistics of the batches.
    :param stats_batch: number of batches per summary.
    """
    workers, actors, batches, counts = (rows[key].tolist() for key in ("worker", "actor", "batch", "count"))
    columns = {value: (rows[value][:, 0].tolist(), rows[value][:, 1].tolist()) for value in VALUES}
    summaries = []
    for index, start in enumerate(range(0, len(rows), stats_batch), 1):
        part = slice(start, start + stats_batch)
        summaries.append(
            {
                "id": f"{worker_index}-{actor_index}-{index}",
                "workers": workers[part],
                "actors": actors[part],
                "batches": batches[part],
                "counts": counts[part],
                **{value: {"mean": m[part], "variance": v[part]} for value, (m, v) in columns.items()},
            }
        )
    return summaries
