"""The first stage: one task per worker sends its share of the tuples to its actor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import ray

if TYPE_CHECKING:
    from actors.provider import Provider
    from functions.parameters import DataParameters
    from numpy.typing import NDArray
    from ray.actor import ActorHandle

CHUNK = 2**18


@ray.remote(num_cpus=0.01)
def preprocess(
    worker_index: int,
    actor_index: int,
    actor_ref: ActorHandle[Provider],
    data: DataParameters,
    share: tuple[ray.ObjectRef[Any], int],
) -> NDArray[np.void]:
    """Have a worker's share processed in chunks of whole batches and return the statistics in order.

    :param worker_index: index of this worker, from 1.
    :param actor_index: index of its actor, from 1.
    :param actor_ref: the actor's handle.
    :param data: how tuples are generated and batched.
    :param share: reference to the share, passed on unresolved, and its number of tuples.
    """
    share_ref, size = share
    step = max(1, CHUNK // data.tuple_batch) * data.tuple_batch
    chunk_refs = [
        actor_ref.batch_process_tuples.remote(worker_index, actor_index, share_ref, start, min(start + step, size))
        for start in range(0, size, step)
    ]
    return np.concatenate(ray.get(chunk_refs))
