"""Long-lived actors that do the numerical work for the tasks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import ray
from functions.statistics import batch_statistics, summarize

if TYPE_CHECKING:
    from functions.parameters import DataParameters
    from numpy.typing import NDArray


# A sliver of a CPU: jobs side by side on a small head must not wait for one another's reservations for ever.
@ray.remote(num_cpus=0.01, scheduling_strategy="SPREAD")
class Provider:
    """Computes the statistics of tuples and the summaries of statistics."""

    def __init__(self, data: DataParameters) -> None:
        self.data = data

    def batch_process_tuples(
        self, worker_index: int, actor_index: int, tuples: NDArray[np.uint32], start: int, stop: int
    ) -> NDArray[np.void]:
        """Statistics of the batches between two places of a worker's share.

        :param worker_index: the worker whose share it is, from 1.
        :param actor_index: this actor, from 1.
        :param tuples: the share; it stays in the object store and is read in place.
        :param start: first tuple, a multiple of the batch size.
        :param stop: the tuple after the last.
        """
        rows = batch_statistics(tuples[start:stop], self.data)
        rows["worker"], rows["actor"] = worker_index, actor_index
        rows["batch"] = start // self.data.tuple_batch + 1 + np.arange(len(rows))
        return rows

    def batch_process_stats(self, worker_index: int, actor_index: int, rows: NDArray[np.void]) -> str:
        """Summaries of batches as the inside of a JSON list: written once, here, and never parsed again."""
        return json.dumps(summarize(worker_index, actor_index, rows, self.data.stats_batch))[1:-1]
