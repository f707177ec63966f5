"""The tasks of one cluster in a fan-out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context, task_group

from airflow_provider_ray.fan_out import results
from airflow_provider_ray.fan_out.plan import Shard
from airflow_provider_ray.jobs.retry_policy import ray_retry_policy
from airflow_provider_ray.operators.job import RaySubmitJobOperator
from airflow_provider_ray.operators.serve import RayServeOperator
from airflow_provider_ray.sensors.job import RayJobSensor

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, XComArg

DAY = 86_400.0
# Deferrals need a retry on Airflow 3.3.2, which fails some of them by itself; a retry finds its job again.
PATIENT: Mapping[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=5),
    "retry_policy": ray_retry_policy(delay=5),
}


@dataclass(frozen=True)
class Chain:
    """The tasks of one cluster, mapped over shards.

    :param job: fields of ``submit``.
    :param collect: fields of ``collect``, None for no such task.
    :param release: fields of ``release``, None for no such task.
    :param default_args: of all of them.
    """

    job: Mapping[str, Any]
    collect: Mapping[str, Any] | None
    release: Mapping[str, Any] | None
    default_args: Mapping[str, Any]

    def over(self, shards: XComArg, group_id: str) -> Sequence[BaseOperator]:
        """Map the chain over shards and return the tasks that decide what came of it."""
        decisive: list[BaseOperator] = []

        @task_group(group_id=group_id, default_args=dict(self.default_args))
        def on_cluster(conn_id: str, application: str, parameters: Any, shard: Any) -> None:
            decisive.extend(self._tasks(conn_id, application, parameters))

        on_cluster.expand_kwargs(shards)
        return decisive

    def outcomes(self, group_id: str, planned: Sequence[Mapping[str, Any]]) -> list[tuple[Shard, dict[str, Any]]]:
        """What came of each shard that the chain was mapped over in this task group."""
        context = get_current_context()
        siblings = context["ti"].task_id.rpartition(".")[0]
        shards = [Shard(**each["shard"]) for each in planned]
        chains = results.Chains(context, f"{siblings}.{group_id}", serves=self.collect is not None)
        return [(shard, chains.outcome(index, shard)) for index, shard in enumerate(shards)]

    def _tasks(self, conn_id: Any, application: Any, parameters: Any) -> list[BaseOperator]:
        """Make the tasks, and return those that ``merge`` has to follow.

        Airflow fails the run for a failed task that nothing but teardowns follow, and does not let ``merge``, which
        runs whatever came before, follow a setup.
        """
        submit = partial(RaySubmitJobOperator, task_id="submit", conn_id=conn_id, parameters=parameters)
        wait = partial(RayJobSensor, task_id="wait", conn_id=conn_id, deferrable=True, poke_interval=5, timeout=DAY)
        job = _noted(self.job)
        if self.collect is None:
            # The job belongs to submit as long as it runs; wait adds how long that took.
            submitted: BaseOperator = submit(**{"deferrable": True, **job})
            return [submitted, self._followed(submitted, wait)]
        return self._serving(submit(wait_for_completion=False, **job), wait, conn_id, application)

    def _serving(
        self, submitted: BaseOperator, wait: partial[RayJobSensor], conn_id: Any, application: Any
    ) -> list[BaseOperator]:
        """Take the answer of a job that serves it, and let the job go.

        ``release`` and ``wait`` are teardowns of ``submit``: they follow every submitted job, so that none is left
        behind when ``collect`` fails or somebody fails the run.
        """
        job: Any = submitted.output
        serve = partial(RayServeOperator, conn_id=conn_id, application=application, submission_id=job["submission_id"])
        waiting = {"deferrable": True, "poll_interval": 2, "timeout": DAY}
        collect = last = serve(task_id="collect", **{**waiting, **_noted(self.collect or {})})
        submitted >> collect
        if self.release is not None:
            calling = {"method": "POST", "timeout": 60, "retries": 0}
            last = serve(task_id="release", **{**calling, **self.release}).as_teardown(setups=submitted)
            collect >> last
        waited = wait(submission_id=job["submission_id"], fetch_logs=True).as_teardown(setups=submitted)
        last >> waited
        return [collect, waited]

    @staticmethod
    def _followed(submitted: BaseOperator, wait: partial[RayJobSensor]) -> BaseOperator:
        job: Any = submitted.output
        waited = wait(submission_id=job["submission_id"])
        submitted >> waited
        return waited


def chain_defaults(*, patient: bool) -> dict[str, Any]:
    """Arguments of a chain's tasks unless the author has others.

    :param patient: try again when a cluster is unavailable, though the two minutes that a task waits are over.
    """
    return {
        **PATIENT,
        "retry_policy": ray_retry_policy(delay=5, cluster_faults=patient),
        # What the UI calls a mapped task instead of its number.
        "map_index_template": "{{ task.conn_id }}",
    }


def with_note(fields: Mapping[str, Any]) -> dict[str, Any]:
    """With the callback that tells ``merge`` why a task failed, before the author's own."""
    own = fields.get("on_failure_callback") or []
    callbacks = [results.note_fault, *(own if isinstance(own, list | tuple) else [own])]
    return {**fields, "on_failure_callback": callbacks}


def _noted(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fields that replace the callback of the default arguments keep ours."""
    return with_note(fields) if "on_failure_callback" in fields else fields
