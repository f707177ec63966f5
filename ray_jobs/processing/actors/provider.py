"""Actors that do the numerical work for the tasks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import ray
from functions.statistics import batch_statistics, summarize

if TYPE_CHECKING:
    from functions.parameters import DataParameters
    from numpy.typing import NDArray


# Reserve a tiny share of a CPU, so that concurrent jobs on a small head never wait forever for each other's CPUs.
@ray.remote(num_cpus=0.01, scheduling_strategy="SPREAD")
class Provider:
    """Computes statistics of tuples and summaries of those statistics."""

    def __init__(self, data: DataParameters) -> None:
        self.data = data

    def batch_process_tuples(
        self, worker_index: int, actor_index: int, tuples: NDArray[np.uint32], start: int, stop: int
    ) -> NDArray[np.void]:
        """Compute the statistics of the batches in one range of a worker's share.

        :param worker_index: index of the worker that owns the share, from 1.
        :param actor_index: index of this actor, from 1.
        :param tuples: the share, read in place from the object store.
        :param start: position of the first tuple, a multiple of the batch size.
        :param stop: position after the last tuple.
        """
        rows = batch_statistics(tuples[start:stop], self.data)
        rows["worker"], rows["actor"] = worker_index, actor_index
        rows["batch"] = start // self.data.tuple_batch + 1 + np.arange(len(rows))
        return rows

    def batch_process_stats(self, worker_index: int, actor_index: int, rows: NDArray[np.void]) -> str:
        """Return the summaries of batches as the body of a JSON list: encoded once, here, and never parsed again."""
        return json.dumps(summarize(worker_index, actor_index, rows, self.data.stats_batch))[1:-1]
