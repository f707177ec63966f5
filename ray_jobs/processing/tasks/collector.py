"""The second stage: one task per worker has the worker's statistics summarized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ray

if TYPE_CHECKING:
    import numpy as np
    from actors.provider import Provider
    from numpy.typing import NDArray
    from ray.actor import ActorHandle


@ray.remote(num_cpus=0.01)
def collector(worker_index: int, actor_index: int, actor_ref: ActorHandle[Provider], rows: NDArray[np.void]) -> str:
    """Have a worker's statistics summarized by an actor and return the summaries.

    :param worker_index: index of the worker that produced the statistics, from 1.
    :param actor_index: index of the actor, from 1.
    :param actor_ref: the actor's handle.
    :param rows: statistics of the worker's batches.
    """
    summaries_ref: ray.ObjectRef[str] = actor_ref.batch_process_stats.remote(worker_index, actor_index, rows)
    return ray.get(summaries_ref)
