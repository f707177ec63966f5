"""Which cluster gets which part of the work: the tasks ``plan`` and ``replan`` of a fan-out."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.errors import RayClusterUnavailable, RayConfigError, RayError
from airflow_provider_ray.client.values import RESOURCES, number, plain, whole_number
from airflow_provider_ray.compat.templates import value_of
from airflow_provider_ray.fan_out.division import (
    divide_items,
    divide_range,
    read_weights,
    weighted_shares,
)
from airflow_provider_ray.fan_out.faults import without_secrets
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.jobs.stopping import log_stopped

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.capacity import Capacity
    from airflow_provider_ray.client.config import ClusterConfig

log = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_WEIGHTS: Mapping[str, float] = {"CPU": 0.6, "memory": 0.2, "GPU": 0.2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One cluster's part of the work.

    :param conn_id: connection of the cluster.
    :param application: a name for the job's Serve application, different in every run.
    :param serve_port: port at which the connection expects Serve.
    :param share: part of the total work, from 0 to 1.
    :param offset: first number of the range; None for items.
    :param amount: how many numbers or items.
    :param items: the items; None for a range.
    :param taken_over_from: connection of the cluster that had the work before; None for a cluster's own work.
    """

    conn_id: str
    application: str
    serve_port: int
    share: float
    amount: int
    offset: int | None = None
    items: Sequence[Any] | None = None
    taken_over_from: str | None = None


Parameters = Callable[[Shard, Mapping[str, Any]], Any]


class PlannedShard(TypedDict):
    """What the tasks of one cluster are mapped over: an entry in the XCom of ``plan`` and ``replan``.

    :param conn_id: connection of the cluster.
    :param application: name of the job's Serve application.
    :param parameters: the job's argument.
    :param shard: the :class:`Shard` as a dict.
    """

    conn_id: str
    application: str
    parameters: Any
    shard: dict[str, Any]


class WithoutWork(TypedDict):
    """Clusters that got no work.

    :param idle: connections of those that have none of the resources by which the work is divided.
    :param unavailable: why the capacity of the others could not be read, by connection id.
    """

    idle: list[str]
    unavailable: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be divided: a range of numbers, or items.

    :param amount: how many numbers.
    :param offset: the first number.
    :param items: instead of an amount, a list of values that JSON can hold.
    :param sizes: a size for each item; None when all count the same.
    """

    amount: Any = None
    offset: Any = 0
    items: Sequence[Any] | None = None
    sizes: Sequence[float] | None = None

    @classmethod
    def given(cls, amount: Any, offset: Any, items: Any, sizes: Any) -> Work:
        """The work as the author gave it; the values may be rendered templates.

        :raises RayConfigError: when it is neither a range nor a list of items.
        """
        amount, items, sizes = value_of(amount), _listed("items", items), _listed("sizes", sizes)
        if (amount is None) == (items is None):
            raise RayConfigError("amount and items", "both" if items is not None else "neither", "one of them")
        if items is None and not (amount := whole_number("amount", amount)):
            raise RayConfigError("amount", repr(amount), "a whole number of at least 1")
        sizes = sizes and [number(f"sizes[{position}]", size) for position, size in enumerate(sizes)]
        return cls(amount=amount, offset=whole_number("offset", offset) or 0, items=items, sizes=sizes)

    def divide(self, shares: Mapping[str, float]) -> dict[str, dict[str, Any]]:
        """Fields of the shard of each cluster that gets work.

        :param shares: the share of each cluster, by connection id.
        """
        if self.items is None:
            parts = [asdict(piece) for piece in divide_range(self.amount, list(shares.values()), self.offset)]
        else:
            sizes = [1.0] * len(self.items) if self.sizes is None else self.sizes
            parts = [
                {"items": items, "amount": len(items)}
                for items in divide_items(self.items, sizes, list(shares.values()))
            ]
        return {conn_id: part for conn_id, part in zip(shares, parts, strict=True) if part["amount"]}


@dataclass(frozen=True, slots=True)
class Participants:
    """What the clusters of a fan-out have.

    :param configs: the configuration of each cluster, by connection id.
    :param capacities: the capacity of each healthy cluster, by connection id.
    :param faults: why the others get no work, by connection id.
    """

    configs: Mapping[str, ClusterConfig]
    capacities: Mapping[str, Capacity]
    faults: Mapping[str, RayError]

    def shares(self, weights: Any, capacity: str) -> dict[str, float]:
        """The share of each healthy cluster.

        :param weights: how much each resource counts; None or ``{}`` for equal shares.
        :param capacity: divide by ``free`` or ``total`` resources.
        :raises RayClusterUnavailable: when no cluster is healthy, or only an unavailable one may have what is weighted.
        :raises RayConfigError: when the weights cannot work.
        """
        if not self.capacities:
            self.raise_fault()
        weights = read_weights(value_of(weights))
        if not weights:
            return dict.fromkeys(self.capacities, 1 / len(self.capacities))
        self._check_known(weights)
        totals = [each.total for each in self.capacities.values()]
        free = [each.free or {} for each in self.capacities.values()]
        shares = weighted_shares(free if capacity == "free" else totals, weights, known=totals)
        if not any(shares):
            log.warning("No cluster reports free resources; dividing the work by their total resources")
            shares = weighted_shares(totals, weights)
        if not any(shares):
            self.raise_fault()
            raise RayConfigError("weights", repr(dict(weights)), "a resource that at least one of the clusters has")
        return dict(zip(self.capacities, shares, strict=True))

    def _check_known(self, weights: Mapping[str, float]) -> None:
        """Refuse weights for a resource that no healthy cluster has, as long as an unavailable one may have it.

        :raises RayClusterUnavailable: naming the resource and the cluster.
        """
        known = set(RESOURCES).union(*(each.total for each in self.capacities.values()))
        unknown = sorted(set(weights) - known)
        if unknown and self.faults:
            reasons = "; ".join(f"{conn_id!r}: {fault}" for conn_id, fault in self.faults.items())
            raise RayClusterUnavailable.from_message(
                f"No cluster that is available has {unknown}, which weights name. Unavailable: {reasons}"
            )

    def check(self, *, allow_same_cluster: bool, serving: bool) -> None:
        """Reject connections that lead to the same cluster, and clusters that could answer for each other.

        :param allow_same_cluster: accept connections that lead to the same cluster.
        :param serving: the jobs serve their answers.
        :raises RayConfigError: naming the connections.
        """
        sessions = {conn_id: capacity.session_name for conn_id, capacity in self.capacities.items()}
        for session, same in _grouped(sessions).items():
            if session and len(same) > 1 and not allow_same_cluster:
                got = f"{same}, which lead to the same cluster (session {session})"
                raise RayConfigError("clusters", got, "one connection per cluster, or allow_same_cluster=True")
        addresses = {conn_id: _serve_address(self.configs[conn_id]) for conn_id in self.capacities if serving}
        for address, same in _grouped(addresses).items():
            if len({sessions[conn_id] for conn_id in same}) > 1:
                got = f"{same}, whose Serve is expected at the same address {address}"
                raise RayConfigError("clusters", got, "a different Serve address for each cluster (serve_url)")

    def raise_fault(self) -> None:
        """Raise the reason why a cluster is unavailable, if there is such a cluster."""
        for fault in self.faults.values():
            raise fault

    def without_work(self, shards: Sequence[Shard]) -> WithoutWork:
        """Clusters that got no work."""
        busy = {shard.conn_id for shard in shards}
        return {
            "idle": [conn_id for conn_id in self.capacities if conn_id not in busy],
            "unavailable": {conn_id: without_secrets(fault) for conn_id, fault in self.faults.items()},
        }


def ask_participants(conn_ids: Sequence[str], *, accepted: bool = False) -> Participants:
    """Read the capacity of the clusters of a fan-out, all at the same time.

    :param accepted: they have accepted their credentials before; one that rejects them now gets no work.
    :raises RayError: when a cluster cannot be used, for a reason that waiting will not resolve.
    """
    from airflow_provider_ray.client.clusters.health import healthy_or_fault
    from airflow_provider_ray.client.clusters.survey import survey
    from airflow_provider_ray.client.sync import run_sync

    configs = {conn_id: RayHook(conn_id).get_config() for conn_id in conn_ids}
    answers = run_sync(lambda: survey(configs, conn_ids if accepted else ()))
    found = {conn_id: healthy_or_fault(answer) for conn_id, answer in answers.items()}
    faults = {conn_id: each for conn_id, each in found.items() if isinstance(each, RayError)}
    for conn_id, fault in faults.items():
        if not fault.transient:
            raise fault
        log.warning("%s gets no work: %s", conn_id, fault)
    return Participants(configs, {name: each for name, each in found.items() if not isinstance(each, RayError)}, faults)


def plan_shards(work: Work, participants: Participants, shares: Mapping[str, float]) -> list[Shard]:
    """The shards of a fan-out, one for each cluster that gets work."""
    total = sum(shares.values())
    return [
        Shard(
            conn_id=conn_id,
            application=f"fan-out-{uuid4().hex[:12]}",
            serve_port=participants.configs[conn_id].serve_port,
            share=shares[conn_id] / total,
            **part,
        )
        for conn_id, part in work.divide(shares).items()
    ]


def replan_shards(dead: Shard, participants: Participants, shares: Mapping[str, float]) -> list[Shard]:
    """Divide the shard of a dead cluster again.

    :param dead: the shard.
    :param participants: the clusters that take it over.
    :param shares: their shares.
    """
    work = Work(amount=dead.amount if dead.items is None else None, offset=dead.offset or 0, items=dead.items)
    return [
        replace(part, share=part.share * dead.share, taken_over_from=dead.conn_id)
        for part in plan_shards(work, participants, shares)
    ]


def give_up_job(conn_id: str, submission_id: str | None) -> None:
    """Stop the job of a dead shard before other clusters do its work; a job that cannot be reached counts as lost.

    :raises RayJobStopping: when the job has not ended after a stop request.
    :raises RayAuthError: when its cluster rejects the credentials: the job is running there.
    """
    from airflow_provider_ray.client.errors import RayAuthError, RayJobStopping
    from airflow_provider_ray.client.jobs.waiting import stop_job
    from airflow_provider_ray.client.states import is_terminal

    if submission_id is None:
        return
    try:
        hook = RayHook(conn_id, accepted=True)
        job = hook.run(lambda client: stop_job(client, submission_id, within=pacing.LOST_STOP_SECONDS))
    except RayAuthError:
        raise
    except RayError as error:
        log.warning("Ray job %s on %s could not be stopped and counts as lost: %s", submission_id, conn_id, error)
        return
    log_stopped(log, conn_id, submission_id, job)
    if job is not None and not is_terminal(job.status):
        raise RayJobStopping(conn_id, job, "has not stopped yet after a stop request; the next attempt checks again")


def _listed(name: str, given: Any) -> list[Any] | None:
    """A list in types of JSON, also from a template of one or the XComs of a mapped task."""
    found = plain(name, value_of(given))
    if found is not None and (not isinstance(found, list) or not found):
        raise RayConfigError(name, repr(found)[:200], "a list with at least one element")
    return found


def _serve_address(config: ClusterConfig) -> str:
    """Where Serve is expected. One gateway may lead to several clusters, under different paths."""
    if config.serve_url is None:
        return f"{urlsplit(config.url).hostname}:{config.serve_port}"
    given = urlsplit(config.serve_url)
    port = given.port or {"http": 80, "https": 443}[given.scheme]
    return f"{given.hostname}:{port}{given.path.rstrip('/')}"


def _grouped(values: Mapping[str, T]) -> dict[T, list[str]]:
    groups: dict[T, list[str]] = defaultdict(list)
    for key, value in values.items():
        groups[value].append(key)
    return groups
