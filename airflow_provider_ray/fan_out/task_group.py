"""One job on many clusters: a task group that divides the work, runs it everywhere and merges the answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import TaskGroup, get_current_context, task

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.values import plain
from airflow_provider_ray.clusters.quorum import check_wanted, how_many
from airflow_provider_ray.clusters.selection import check_clusters, resolve
from airflow_provider_ray.compat.templates import is_literal, value_of
from airflow_provider_ray.fan_out import results
from airflow_provider_ray.fan_out.cluster_tasks import ClusterTasks, retry_defaults, unless_given
from airflow_provider_ray.fan_out.division import read_weights
from airflow_provider_ray.fan_out.faults import UnlessTold, callbacks, note_fault
from airflow_provider_ray.fan_out.options import CallOptions, JobOptions, check_options
from airflow_provider_ray.fan_out.plan import (
    DEFAULT_WEIGHTS,
    PlannedShard,
    Shard,
    Work,
    ask_participants,
    give_up_job,
    plan_shards,
    replan_shards,
)

if TYPE_CHECKING:
    from airflow.sdk import XComArg

    from airflow_provider_ray.clusters.selection import Clusters
    from airflow_provider_ray.compat.templates import Resolvable
    from airflow_provider_ray.fan_out.plan import Parameters

log = logging.getLogger(__name__)

# XCom of plan: the clusters that got no work.
WITHOUT_WORK_KEY = "ray_without_work"


def ray_fan_out(
    *,
    clusters: Clusters,
    job: JobOptions,
    amount: int | str | Resolvable | None = None,
    offset: int | str | Resolvable = 0,
    items: Sequence[Any] | Resolvable | None = None,
    sizes: Sequence[float] | str | Resolvable | None = None,
    parameters: Parameters | None = None,
    collect: CallOptions | None = None,
    release: CallOptions | None = None,
    weights: Mapping[str, float] | str | Resolvable | None = DEFAULT_WEIGHTS,
    capacity: Literal["free", "total"] = "free",
    policy: int | str | Resolvable = "all",
    redistribute: bool = False,
    allow_same_cluster: bool = False,
    default_args: Mapping[str, Any] | None = None,
    group_id: str = "fan_out",
) -> XComArg:
    """Divide work among clusters, run a job on each, collect what the jobs serve, and merge the answers by cluster.

    This makes the task group ``plan`` -> per cluster ``submit``, ``collect``, ``release`` and ``wait`` -> ``merge``.
    The tasks of one cluster do not wait for those of another, and no worker is occupied while a job runs.

    The function returns the XCom of ``merge``, which exists regardless of the policy's verdict. It holds a
    :class:`~airflow_provider_ray.fan_out.results.ClusterResult` for each connection id: ``share`` (0 to 1), ``offset``
    and ``amount``, ``status`` (``SUCCEEDED``, ``FAILED`` or ``NO_WORK``), ``submission_id``, ``seconds`` of the job,
    ``output`` (what ``collect`` returned) or ``error``, and ``taken_over``: the same for work that the cluster took
    over from another one, whose connection id is in ``from``.

    :param clusters: connection ids as a list or a comma-separated string, or a label selector such as
        ``site=hpc,gpu=true``. It may also be a template, ``dag.param(...)`` or the output of a task that is one of
        these. (templated)
    :param job: arguments of ``submit``, such as ``entrypoint`` and ``runtime_env``, see
        :class:`~airflow_provider_ray.fan_out.options.JobOptions`.
    :param amount: how many numbers are divided into ranges. (templated)
    :param offset: the first of these numbers. (templated)
    :param items: instead of an amount, a list of items to be divided. (templated)
    :param sizes: a size for each item; by default all count the same. (templated)
    :param parameters: a function that returns the argument of a cluster's job. The task ``plan`` calls it with the
        cluster's :class:`~airflow_provider_ray.fan_out.plan.Shard` and the run's params. By default the argument is the
        shard as a dict.
    :param collect: arguments of ``collect``, such as ``path``, which fetches the answer of the application that the job
        deploys under the name ``shard.application``; see :class:`~airflow_provider_ray.fan_out.options.CallOptions`.
        None when the job serves nothing.
    :param release: arguments of ``release``, a call that tells the job that it may end. None for no such call.
    :param weights: how much each resource counts when the work is divided; None or ``{}`` for equal shares. (templated)
    :param capacity: divide by the resources that are ``free`` when the run begins, or by the ``total``.
    :param policy: how many clusters have to succeed: ``all`` that got work, ``any``, or a number of them. (templated)
    :param redistribute: divide the work of a cluster that became unavailable, or lost its job, among the clusters that
        succeeded. The work of a job that failed by itself is not repeated. Without it, and with ``policy="all"``
        written in the Dag file, the tasks of an unavailable cluster are retried; otherwise they fail at once.
    :param allow_same_cluster: accept connections that lead to the same cluster.
    :param default_args: default arguments of the cluster tasks, on top of those of the Dag and enclosing groups. An
        ``on_failure_callback`` is called once for a cluster, by the first of its tasks that fails, and by ``merge``
        only if no other task has failed.
    :param group_id: id of the task group.
    :raises RayConfigError: in the Dag file, or in ``plan`` before anything is submitted, when an argument cannot work.
    """
    _check_tasks(job, collect, release)
    if (amount is None) == (items is None):
        raise RayConfigError("amount and items", "neither" if items is None else "both", "one of them")
    if capacity not in ("free", "total"):
        raise RayConfigError("capacity", repr(capacity), "'free' or 'total'")
    _check_literals(clusters, policy, weights)
    if is_literal([amount, offset, items, sizes]):
        Work.given(amount, offset, items, sizes)
    with TaskGroup(group_id) as group:
        inherited = _inherited(group)
        for_clusters = {**inherited, **(default_args or {})}
        # What the UI shows for a mapped task instead of its number.
        for_clusters |= unless_given({"map_index_template": "{{ task.conn_id }}"}, for_clusters)
        again = policy == "all" and not redistribute
        cluster_tasks = ClusterTasks(
            job, collect, release, for_clusters | retry_defaults(for_clusters, cluster_faults=again)
        )
        steps = _Steps(cluster_tasks, parameters, capacity, redistribute, allow_same_cluster)
        retries, told = retry_defaults(inherited), callbacks(inherited)
        noted = {**retries, "on_failure_callback": [note_fault, *told]}
        planned: Any = task(**noted)(steps.plan)(
            clusters=clusters, policy=policy, weights=weights, amount=amount, offset=offset, items=items, sizes=sizes
        )
        last = cluster_tasks.map_over(planned, "on_cluster")
        replanned: Any = []
        if redistribute:
            replanned = task(trigger_rule="all_done", **noted)(steps.replan)(planned, weights)
            last >> replanned.operator
            last = cluster_tasks.map_over(replanned, "taken_over")
        last_step = task(
            trigger_rule="all_done", multiple_outputs=False, on_failure_callback=[*map(UnlessTold, told)], **retries
        )
        merged: Any = last_step(steps.merge)(policy, planned, replanned)
        last >> merged.operator
    return cast("XComArg", merged)


@dataclass(frozen=True)
class _Steps:
    """The functions of ``plan``, ``replan`` and ``merge``; the fields are arguments of ``ray_fan_out``."""

    cluster_tasks: ClusterTasks
    parameters: Parameters | None
    capacity: str
    redistribute: bool
    allow_same_cluster: bool

    def plan(
        self, *, clusters: Any, policy: Any, weights: Any, amount: Any, offset: Any, items: Any, sizes: Any
    ) -> list[PlannedShard]:
        """Decide which cluster gets which part of the work."""
        wanted, conn_ids = Work.given(amount, offset, items, sizes), resolve(clusters, "clusters")
        required = how_many(policy, len(conn_ids))
        participants = ask_participants(conn_ids)
        participants.check(allow_same_cluster=self.allow_same_cluster, serving=self.cluster_tasks.collect is not None)
        if required > len(participants.capacities) and not (policy == "all" and self.redistribute):
            participants.raise_fault()
        shards = plan_shards(wanted, participants, participants.shares(weights, self.capacity))
        how_many(policy, len(shards), what="clusters that answer and get work")
        get_current_context()["ti"].xcom_push(key=WITHOUT_WORK_KEY, value=participants.without_work(shards))
        return self._planned(shards)

    def replan(self, planned: Sequence[PlannedShard] | None, weights: Any) -> list[PlannedShard]:
        """Decide which clusters take over the work that dead clusters have not done."""
        ended = self.cluster_tasks.outcomes("on_cluster", planned or ())
        dead = [
            (shard, outcome) for shard, outcome in ended if (error := outcome["error"]) and error["is_the_clusters"]
        ]
        alive = [shard.conn_id for shard, outcome in ended if not outcome["error"]]
        if not dead or not alive:
            return []
        for shard, outcome in dead:
            give_up_job(shard.conn_id, outcome["submission_id"])
        participants = ask_participants(alive, accepted=True)
        shares = participants.shares(weights, self.capacity)
        return self._planned([part for shard, _ in dead for part in replan_shards(shard, participants, shares)])

    def merge(
        self, policy: Any, planned: Sequence[PlannedShard] | None, replanned: Sequence[PlannedShard] | None
    ) -> dict[str, results.ClusterResult]:
        """Put the outcomes together by connection id, and fail if fewer clusters succeeded than the policy demands."""
        if planned is None:
            raise AirflowFailException("Nothing was submitted; the log of the task plan says why")
        ti = get_current_context()["ti"]
        without_work = ti.xcom_pull(task_ids=ti.task_id.removesuffix("merge") + "plan", key=WITHOUT_WORK_KEY)
        own = self.cluster_tasks.outcomes("on_cluster", planned)
        taken_over = self.cluster_tasks.outcomes("taken_over", replanned or ())
        merged = results.merge(own, taken_over, **without_work)
        for line in results.report(merged):
            log.info("%s", line)
        done, wanted = results.succeeded(merged), how_many(policy, len(planned))
        if len(done) < wanted:
            # The failed task keeps its result, for anyone who looks into the failure.
            ti.xcom_push(key="return_value", value=merged)
            verdict = f"{len(done)} of {len(planned)} clusters succeeded, {wanted} required (policy {policy!r})"
            raise AirflowFailException("\n".join([verdict, *results.failure_lines(merged, done)]))
        return merged

    def _planned(self, shards: Sequence[Shard]) -> list[PlannedShard]:
        params = get_current_context()["params"]
        for shard in shards:
            log.info("%s gets %.1f %% of the work (%d)", shard.conn_id, 100 * shard.share, shard.amount)
        return [
            {
                "conn_id": shard.conn_id,
                "application": shard.application,
                "parameters": plain("parameters", self.parameters(shard, params) if self.parameters else asdict(shard)),
                "shard": asdict(shard),
            }
            for shard in shards
        ]


def _inherited(group: TaskGroup) -> dict[str, Any]:
    """Default arguments of the Dag and of enclosing groups, for the tasks of a fan-out.

    :raises RayConfigError: in a mapped group, since Airflow cannot map tasks over the clusters within it.
    """
    if mapped := next(group.iter_mapped_task_groups(), None):
        expected = "a place outside of mapped task groups; several amounts may become the items of one fan-out"
        raise RayConfigError("ray_fan_out", f"a place in the mapped task group {mapped.group_id!r}", expected)
    return {**(group.dag.default_args or {}), **group.default_args}


def _check_tasks(job: Any, collect: Any, release: Any) -> None:
    check_options("job", job, JobOptions)
    for name, given in (("collect", collect), ("release", release)):
        if given is not None:
            check_options(name, given, CallOptions)
    if release is not None and collect is None:
        raise RayConfigError("release", "a value without collect", "collect as well, or no release")


def _check_literals(clusters: Any, policy: Any, weights: Any) -> None:
    """Check in the Dag file what is known there; templates and outputs of other tasks are only known in a run."""
    number = check_clusters(clusters, "clusters")
    if is_literal(policy):
        check_wanted(policy, number)
    if is_literal(weights):
        read_weights(value_of(weights))
