"""Which clusters an argument names, and which of them gets a job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from zlib import crc32

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.labels import EXAMPLE, parse_labels
from airflow_provider_ray.clusters.discovery import select
from airflow_provider_ray.compat.templates import is_literal, list_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_ray.client.api.capacity import Capacity
    from airflow_provider_ray.client.api.ray_client import RayClient
    from airflow_provider_ray.client.errors import RayError
    from airflow_provider_ray.compat.templates import Resolvable
    from airflow_provider_ray.hooks.ray import RayHook

    # What :func:`resolve` accepts.
    Clusters: TypeAlias = str | Sequence[str] | Resolvable
    Strategy: TypeAlias = Literal["first_healthy", "least_loaded", "round_robin"]

log = logging.getLogger(__name__)

RESOURCES = ("CPU", "GPU")
CLUSTERS_EXPECTED = (
    "a connection id, a list of different ones, a comma-separated string of them, "
    f"or a label selector such as {EXAMPLE}"
)


def resolve(given: Any, field: str = "conn_id") -> list[str]:
    """Connection ids of the clusters that a Dag author named.

    This is the one meaning of a cluster argument, in operators, sensors and fan-outs: a connection id, a list of them
    (also the lazy XCom of a mapped task), a comma-separated string of them, a label selector such as
    ``site=hpc,gpu=true``, or what a template of one of these was rendered to. A selector looks connections up in
    Airflow, so only call this in a run.

    :param given: the argument.
    :param field: name of the argument, for errors.
    :raises RayConfigError: when it is none of these, when it names no cluster or one twice, or when no known cluster
        has the labels.
    """
    named = _read(given, field)
    return select(named, field=field) if isinstance(named, str) else named


def resolve_one(given: Any, field: str = "conn_id") -> str:
    """Connection id of the one cluster that a Dag author named, in any of the forms that :func:`resolve` accepts.

    :raises RayConfigError: see :func:`resolve`; also when the argument stands for several clusters.
    """
    conn_ids = resolve(given, field)
    _check_one(conn_ids, given, field)
    return conn_ids[0]


def check_clusters(given: Any, field: str = "conn_id", *, one: bool = False) -> int | None:
    """Reject in the Dag file a cluster argument that cannot work, as far as that is known there.

    Nothing is looked up in Airflow: templates, XComs and the clusters that a selector stands for are left to the run.

    :param given: the argument, see :func:`resolve`.
    :param field: name of the argument, for errors.
    :param one: exactly one cluster is needed.
    :returns: how many clusters there are; None when only a run can tell.
    :raises RayConfigError: when the argument cannot work.
    """
    if not is_literal(given):
        return None
    named = _read(given, field)
    if isinstance(named, str):
        return None
    if one:
        _check_one(named, given, field)
    return len(named)


def _read(given: Any, field: str) -> list[str] | str:
    """Connection ids, or the selector that stands for them."""
    given = list_of(given)
    # Airflow allows neither = nor , in a connection id.
    if isinstance(given, str) and "=" in given:
        parse_labels(field, given)
        return given
    if isinstance(given, str):
        named = [each.strip() for each in given.split(",") if each.strip()]
    elif isinstance(given, Sequence):
        named = list(given)
    else:
        raise RayConfigError(field, f"{given!r} of type {type(given).__name__}", CLUSTERS_EXPECTED)
    _check_ids(named, given, field)
    return named


def _check_ids(named: Sequence[Any], given: Any, field: str) -> None:
    if not named:
        raise RayConfigError(field, repr(given) if isinstance(given, str) else "an empty list", CLUSTERS_EXPECTED)
    for position, each in enumerate(named):
        if not isinstance(each, str) or not each.strip() or "=" in each or "," in each:
            raise RayConfigError(field, f"{each!r} at position {position + 1}", CLUSTERS_EXPECTED)
        if each in named[:position]:
            raise RayConfigError(field, f"{each!r} twice", CLUSTERS_EXPECTED)


def _check_one(conn_ids: Sequence[str], given: Any, field: str) -> None:
    if len(conn_ids) > 1:
        meaning = f"{given!r}, which stands for {list(conn_ids)}" if isinstance(given, str) else repr(list(conn_ids))
        raise RayConfigError(field, meaning, "exactly one cluster")


def check_strategy(strategy: Any) -> None:
    """Reject a strategy that does not exist; it is not templated, so call this in the Dag file.

    :raises RayConfigError: naming the strategies that exist.
    """
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        raise RayConfigError("strategy", repr(strategy), f"one of {sorted(STRATEGIES)}")


def choose(conn_ids: Sequence[str], strategy: str, context: Context, failed_on: Sequence[str] = ()) -> RayHook:
    """Choose the cluster for a new job. A single cluster is taken without checking whether it is healthy.

    Healthy is defined in :mod:`airflow_provider_ray.client.clusters.health`. All clusters are queried at the same
    time, for at most ten seconds. A connection that does not exist is an error.

    :param conn_ids: connections to choose from.
    :param strategy: one of ``STRATEGIES``.
    :param failed_on: connections whose clusters have failed the task, the latest one last; other clusters are
        preferred to them.
    :raises AirflowNotFoundException: when a connection does not exist.
    :raises RayConfigError: when a connection has a field that cannot work.
    :raises RayClusterUnavailable: when none of several clusters is healthy.
    """
    from airflow_provider_ray.hooks.ray import RayHook

    hooks = [RayHook(conn_id) for conn_id in conn_ids]
    for hook in hooks:
        hook.get_config()
    if len(hooks) == 1:
        return hooks[0]
    healthy = _healthy(hooks, strategy)
    # If all of them have failed, take the one whose failure is the oldest.
    fresh = [conn_id for conn_id in healthy if conn_id not in failed_on] or [min(healthy, key=failed_on.index)]
    chosen = STRATEGIES[strategy](fresh, healthy, context)
    log.info("Chose %s from %s (%s)", chosen, ", ".join(conn_ids), strategy)
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
    healthy = {conn_id: answer for conn_id, answer in answers.items() if not isinstance(answer, RayError)}
    for conn_id, capacity in healthy.items():
        for what, why in (capacity.unknown if capacity else {}).items():
            log.info("%s counts as fully loaded by its %s, which are unknown: %s", conn_id, what, why)
    return healthy


async def _examine(client: RayClient, *, with_load: bool) -> Capacity | RayError | None:
    """Why a cluster is unhealthy, raised or returned; for a healthy one, its capacity if that matters."""
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
    """Sort key, the least loaded cluster first: free share in tenths, waiting demands, jobs. Unknown counts as most."""
    if capacity is None:
        return (inf,)
    free = _free_share(capacity)
    counts = (capacity.pending_demands, capacity.pending_jobs, capacity.running_jobs)
    demands, pending, running = (inf if count is None else count for count in counts)
    return (inf if free is None else -int(free * 10), demands, pending + running, inf if free is None else -free)


def _free_share(capacity: Capacity) -> float | None:
    """The free share of CPU or GPU, whichever is scarcer; None when it is unknown."""
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
