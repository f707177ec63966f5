"""One job over many clusters: a task group that divides the work, runs it everywhere and merges what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import TaskGroup, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_ray.client.clusters.quorum import how_many
from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.fan_out import results
from airflow_provider_ray.fan_out.cluster_tasks import PATIENT, Chain, chain_defaults, with_note
from airflow_provider_ray.fan_out.division import check_weights
from airflow_provider_ray.fan_out.plan import (
    DEFAULT_WEIGHTS,
    Shard,
    Survey,
    Work,
    give_up_job,
    plan_shards,
    replan_shards,
    resolve,
)

if TYPE_CHECKING:
    from airflow.sdk import XComArg

    from airflow_provider_ray.fan_out.plan import Parameters

# XCom of plan: clusters that got no work, and why.
WITHOUT_WORK_KEY = "ray_without_work"
# Fields of the chains' operators that are not the author's to give.
OURS = frozenset({"task_id", "conn_id", "parameters", "wait_for_completion", "application", "submission_id"})


def ray_fan_out(
    *,
    clusters: Any,
    job: Mapping[str, Any],
    amount: Any = None,
    offset: Any = 0,
    items: Any = None,
    sizes: Any = None,
    parameters: Parameters | None = None,
    collect: Mapping[str, Any] | None = None,
    release: Mapping[str, Any] | None = None,
    weights: Any = DEFAULT_WEIGHTS,
    capacity: str = "free",
    policy: Any = "all",
    redistribute: bool = False,
    allow_same_cluster: bool = False,
    default_args: Mapping[str, Any] | None = None,
    group_id: str = "fan_out",
) -> XComArg:
    """Divide work over clusters, run a job on each, collect what it serves, and merge the answers by cluster.

    Makes the task group ``plan`` -> per cluster ``submit``, ``collect``, ``release`` and ``wait`` -> ``merge``. The
    clusters' chains are independent of each other, and no worker is held while a job runs.

    The XCom of ``merge``, which this function returns, is there whatever the policy decides: for each connection id
    ``share`` (0 to 1), ``offset`` and ``amount``, ``status`` (``SUCCEEDED``, ``FAILED`` or ``NO_WORK``),
    ``submission_id``, ``seconds`` of the job, ``output`` (what ``collect`` got) or ``error``, and ``taken_over``: the
    same for what the cluster did in place of another one, named by ``from``.

    :param clusters: connection ids as a list or a text with commas, or a label selector such as ``site=hpc,gpu=true``;
        or a template, ``dag.param(...)`` or the output of a task that is one of them.
    :param job: fields of :class:`~airflow_provider_ray.operators.job.RaySubmitJobOperator`, such as ``entrypoint`` and
        ``runtime_env``.
    :param amount: how many numbers are divided into ranges. (templated)
    :param offset: the first of them. (templated)
    :param items: instead of an amount: a list of items that are divided one by one. (templated)
    :param sizes: a size for each item; default: all weigh the same. (templated)
    :param parameters: called in the task ``plan`` with the
        :class:`~airflow_provider_ray.fan_out.plan.Shard` and the run's
        params; returns the job's argument. Default: the shard as a dict.
    :param collect: fields of :class:`~airflow_provider_ray.operators.serve.RayServeOperator`, such as ``path``, for
        fetching the answer of the application that the job deploys under the name ``shard.application``; None when the
        job does not serve.
    :param release: the same for a call that tells the job that it may end; None for no such call.
    :param weights: how much each resource counts when the work is divided, None for equal shares. (templated)
    :param capacity: divide by what is ``free`` when the run begins, or by the ``total``.
    :param policy: which clusters have to succeed: ``all`` that got work, ``any``, or a number of them. (templated)
    :param redistribute: divide the work of a cluster that became unavailable, or lost its job, over those that
        succeeded. The work of a job that failed by itself is not repeated. Where nobody takes over and ``policy`` is
        ``all``, literally, the chain's tasks are tried again when the cluster is unavailable; else they fail at once.
    :param allow_same_cluster: accept connections that lead to the same cluster.
    :param default_args: of all tasks of the chains.
    :param group_id: name of the task group.
    :raises RayConfigError: in the Dag file or in ``plan``, before anything is submitted, when an argument cannot work.
    """
    _check_fields(job, collect, release)
    if release is not None and collect is None:
        raise RayConfigError("release", "a value without collect", "a job that serves, or no release")
    if (amount is None) == (items is None):
        raise RayConfigError("amount and items", "neither" if items is None else "both", "one of them")
    if capacity not in ("free", "total"):
        raise RayConfigError("capacity", repr(capacity), "'free' or 'total'")
    _check_literals(clusters, policy, weights)
    defaults = {**chain_defaults(patient=policy == "all" and not redistribute), **(default_args or {})}
    chain = Chain(job, collect, release, with_note(defaults))
    run = _Run(chain, parameters, capacity, redistribute, allow_same_cluster)
    with TaskGroup(group_id):
        planned: Any = task(**PATIENT)(run.plan)(
            clusters=clusters, policy=policy, weights=weights, amount=amount, offset=offset, items=items, sizes=sizes
        )
        decisive = chain.over(planned, "on_cluster")
        replanned: Any = []
        if redistribute:
            replanned = task(trigger_rule="all_done", **PATIENT)(run.replan)(planned, weights)
            decisive >> replanned.operator
            decisive = chain.over(replanned, "taken_over")
        merged: Any = task(trigger_rule="all_done", multiple_outputs=False)(run.merge)(policy, planned, replanned)
        decisive >> merged.operator
    return cast("XComArg", merged)


@dataclass(frozen=True)
class _Run:
    """What the tasks that belong to no cluster do in a run; the fields are arguments of ``ray_fan_out``."""

    chain: Chain
    parameters: Parameters | None
    capacity: str
    redistribute: bool
    allow_same_cluster: bool

    def plan(
        self, *, clusters: Any, policy: Any, weights: Any, amount: Any, offset: Any, items: Any, sizes: Any
    ) -> list[dict[str, Any]]:
        """Who gets what."""
        wanted, conn_ids = Work.given(amount, offset, items, sizes), resolve(clusters)
        required = how_many(policy, len(conn_ids), field="policy")
        survey = Survey(conn_ids)
        survey.check(allow_same_cluster=self.allow_same_cluster, serving=self.chain.collect is not None)
        if required > len(survey.capacities) and not (policy == "all" and self.redistribute):
            survey.raise_fault()
        shards = plan_shards(wanted, survey, survey.shares(weights, self.capacity))
        how_many(policy, len(shards), field="policy", what="clusters that answer and get work")
        get_current_context()["ti"].xcom_push(key=WITHOUT_WORK_KEY, value=survey.without_work(shards))
        return self._fields(shards)

    def replan(self, planned: Sequence[Mapping[str, Any]] | None, weights: Any) -> list[dict[str, Any]]:
        """Who takes over what dead clusters have left undone."""
        ended = self.chain.outcomes("on_cluster", planned or ())
        dead = [(shard, outcome) for shard, outcome in ended if (outcome["error"] or {}).get("is_the_clusters")]
        alive = [shard.conn_id for shard, outcome in ended if not outcome["error"]]
        if not dead or not alive:
            return []
        for shard, outcome in dead:
            give_up_job(shard.conn_id, outcome["submission_id"])
        survey = Survey(alive)
        shares = survey.shares(weights, self.capacity)
        return self._fields([part for shard, _ in dead for part in replan_shards(shard, survey, shares)])

    def merge(
        self, policy: Any, planned: Sequence[Mapping[str, Any]] | None, replanned: Sequence[Mapping[str, Any]] | None
    ) -> dict[str, dict[str, Any]]:
        """What came of it, by connection id."""
        if planned is None:
            raise AirflowFailException("Nothing was submitted; the log of the task plan says why")
        ti = get_current_context()["ti"]
        without_work = ti.xcom_pull(task_ids=ti.task_id.removesuffix("merge") + "plan", key=WITHOUT_WORK_KEY)
        own, more = self.chain.outcomes("on_cluster", planned), self.chain.outcomes("taken_over", replanned or ())
        merged = results.merge(own, more, **without_work)
        done, wanted = results.succeeded(merged), how_many(policy, len(planned), field="policy")
        if len(done) < wanted:
            # Whoever looks into the failure finds what there is.
            ti.xcom_push(key="return_value", value=merged)
            said = f"{len(done)} of {len(planned)} clusters succeeded, {wanted} have to (policy {policy!r})"
            raise AirflowFailException("\n".join([said, *results.complaints(merged, done)]))
        return merged

    def _fields(self, shards: Sequence[Shard]) -> list[dict[str, Any]]:
        """What a chain is mapped over."""
        params = get_current_context()["params"]
        return [
            {
                "conn_id": shard.conn_id,
                "application": shard.application,
                "parameters": self.parameters(shard, params) if self.parameters else asdict(shard),
                "shard": asdict(shard),
            }
            for shard in shards
        ]


def _check_fields(job: Mapping[str, Any], collect: Mapping[str, Any] | None, release: Mapping[str, Any] | None) -> None:
    for name, fields in (("job", job), ("collect", collect), ("release", release)):
        if taken := sorted(OURS & set(fields or ())):
            raise RayConfigError(name, f"{taken}", "fields that ray_fan_out does not set itself")


def _check_literals(clusters: Any, policy: Any, weights: Any) -> None:
    """Refuse in the Dag file what can be known there; templates and outputs of other tasks are known in a run only."""
    is_literal = isinstance(policy, int) or (isinstance(policy, str) and "{" not in policy)
    if isinstance(clusters, list | tuple):
        number = len(resolve(clusters))
        if is_literal:
            how_many(policy, number, field="policy")
    if isinstance(weights, Mapping):
        check_weights(weights)
