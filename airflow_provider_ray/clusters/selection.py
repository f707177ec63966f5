"""Which of several clusters gets a job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any
from zlib import crc32

from airflow_provider_ray.clusters.rendered import list_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_ray.client.api.capacity import Capacity
    from airflow_provider_ray.client.api.ray_client import RayClient
    from airflow_provider_ray.client.errors import RayError
    from airflow_provider_ray.hooks.ray import RayHook

log = logging.getLogger(__name__)

RESOURCES = ("CPU", "GPU")


def connections(conn_id: Any, field: str = "conn_id") -> tuple[str, ...]:
    """The connection ids that an author gave, one or a list of them, which may be a rendered template.

    :param field: what the author calls them.
    :raises RayConfigError: when there is none, one is no text, or one is there twice.
    """
    from airflow_provider_ray.client.errors import RayConfigError

    expected = "a connection id or a list of different ones"
    conn_id = list_of(conn_id)
    if not isinstance(conn_id, str | Sequence):
        raise RayConfigError(field, f"{conn_id!r} of type {type(conn_id).__name__}", expected)
    given = (conn_id,) if isinstance(conn_id, str) else tuple(conn_id)
    if not given:
        raise RayConfigError(field, "an empty list", expected)
    for number, each in enumerate(given):
        if not isinstance(each, str) or not each:
            raise RayConfigError(field, f"{each!r} at place {number + 1}", expected)
        if each in given[:number]:
            raise RayConfigError(field, f"{each!r} twice", expected)
    return given


def check_strategy(strategy: Any) -> None:
    """Refuse a strategy that does not exist.

    :raises RayConfigError: see above.
    """
    from airflow_provider_ray.client.errors import RayConfigError

    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        raise RayConfigError("strategy", repr(strategy), f"one of {sorted(STRATEGIES)}")


def choose(conn_ids: Sequence[str], strategy: str, context: Context, failed_on: Sequence[str] = ()) -> RayHook:
    """The cluster for a new job. One that is the only one is not asked whether it is healthy.

    Healthy is what :mod:`airflow_provider_ray.client.clusters.health` calls so. All are asked at the same time, for ten
    seconds at most; a connection that does not exist is an error.

    :param failed_on: connections whose cluster has failed the task, the latest last; others are chosen before them.
    :raises AirflowNotFoundException: when a connection does not exist.
    :raises RayConfigError: when a connection cannot work.
    :raises RayClusterUnavailable: when none of several clusters is healthy.
    """
    from airflow_provider_ray.hooks.ray import RayHook

    hooks = [RayHook(conn_id) for conn_id in conn_ids]
    for hook in hooks:
        hook.get_config()
    if len(hooks) == 1:
        return hooks[0]
    healthy = _healthy(hooks, strategy)
    # Of those that have failed, the one whose failure is the longest ago.
    fresh = [conn_id for conn_id in healthy if conn_id not in failed_on] or [min(healthy, key=failed_on.index)]
    chosen = STRATEGIES[strategy](fresh, healthy, context)
    log.info("Chose %s of %s (%s)", chosen, ", ".join(conn_ids), strategy)
    return next(hook for hook in hooks if hook.conn_id == chosen)


def _healthy(hooks: Sequence[RayHook], strategy: str) -> Mapping[str, Capacity | None]:
    from airflow_provider_ray.client import pacing
    from airflow_provider_ray.client.clusters.asking import Question, ask_all
    from airflow_provider_ray.client.errors import RayClusterUnavailable, RayConfigError, RayError
    from airflow_provider_ray.client.sync import run_sync

    examine = partial(_examine, with_load=strategy == "least_loaded")
    questions = [Question(hook.get_conn(), examine, pacing.ANSWER_SECONDS) for hook in hooks]
    answers = dict(zip([hook.conn_id for hook in hooks], run_sync(lambda: ask_all(questions)), strict=True))
    faults = {conn_id: answer for conn_id, answer in answers.items() if isinstance(answer, RayError)}
    for conn_id, fault in faults.items():
        if isinstance(fault, RayConfigError):
            raise fault
        log.warning("Skipping cluster %s: %s", conn_id, fault)
    if len(faults) == len(answers):
        reasons = "; ".join(f"{conn_id!r}: {fault}" for conn_id, fault in faults.items())
        raise RayClusterUnavailable.from_message(f"None of the clusters is healthy: {reasons}")
    return {conn_id: answer for conn_id, answer in answers.items() if not isinstance(answer, RayError)}


async def _examine(client: RayClient, *, with_load: bool) -> Capacity | RayError | None:
    """Why a cluster is unhealthy, raised or returned; of a healthy one the capacity, if that matters."""
    from airflow_provider_ray.client import pacing
    from airflow_provider_ray.client.api.retry import retrying
    from airflow_provider_ray.client.clusters.health import healthy_or_fault, why_unhealthy

    budget = pacing.HICCUP_SECONDS
    if with_load:
        return healthy_or_fault(await retrying(client.capacity, budget))
    version = await retrying(client.cluster.version, budget)
    return why_unhealthy(version, await retrying(client.cluster.nodes, budget))


def _first_healthy(conn_ids: Sequence[str], _: Mapping[str, Capacity | None], __: Context) -> str:
    return conn_ids[0]


def _least_loaded(conn_ids: Sequence[str], capacities: Mapping[str, Capacity | None], _: Context) -> str:
    return min(conn_ids, key=lambda conn_id: _load(capacities[conn_id]))


def _round_robin(conn_ids: Sequence[str], _: Mapping[str, Capacity | None], context: Context) -> str:
    ti = context["ti"]
    start = crc32(f"{ti.dag_id}/{ti.run_id}/{ti.task_id}".encode())
    return conn_ids[(start + max(ti.map_index or 0, 0)) % len(conn_ids)]


def _load(capacity: Capacity | None) -> tuple[float, ...]:
    """What to compare clusters by, the least loaded first: free share in tenths, what waits, jobs; unknown is most."""
    if capacity is None:
        return (inf,)
    free = _free_share(capacity)
    counts = (capacity.pending_demands, capacity.pending_jobs, capacity.running_jobs)
    demands, pending, running = (inf if count is None else count for count in counts)
    return (inf if free is None else -int(free * 10), demands, pending + running, inf if free is None else -free)


def _free_share(capacity: Capacity) -> float | None:
    """The free share of CPU or GPU, whichever is scarcer; None when it is not known."""
    free = capacity.free or {}
    has = [name for name in RESOURCES if capacity.total.get(name)]
    if not has or not all(name in free for name in has):
        return None
    return min(free[name] / capacity.total[name] for name in has)


STRATEGIES: Mapping[str, Callable[[Sequence[str], Mapping[str, Capacity | None], Context], str]] = {
    "first_healthy": _first_healthy,
    "least_loaded": _least_loaded,
    "round_robin": _round_robin,
}
