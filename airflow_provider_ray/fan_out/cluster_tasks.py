"""The tasks of one cluster in a fan-out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context, task_group

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.durations import seconds
from airflow_provider_ray.fan_out import results
from airflow_provider_ray.fan_out.faults import UnlessTold, callbacks, note_fault
from airflow_provider_ray.fan_out.plan import Shard
from airflow_provider_ray.jobs.retry_policy import RayRetryPolicy
from airflow_provider_ray.operators.job import RaySubmitJobOperator
from airflow_provider_ray.operators.serve import RayServeOperator
from airflow_provider_ray.sensors.job import RayJobSensor

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, XComArg

    from airflow_provider_ray.fan_out.options import CallOptions, JobOptions
    from airflow_provider_ray.fan_out.plan import PlannedShard

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
LONGEST_DELAY_SECONDS = 600


@dataclass(frozen=True)
class ClusterTasks:
    """The tasks of one cluster, mapped over shards.

    :param job: arguments of ``submit``.
    :param collect: arguments of ``collect``; None leaves the task out.
    :param release: arguments of ``release``; None leaves the task out.
    :param default_args: default arguments of all these tasks.
    """

    job: JobOptions
    collect: CallOptions | None
    release: CallOptions | None
    default_args: Mapping[str, Any]

    def map_over(self, shards: XComArg, group_id: str) -> Sequence[BaseOperator]:
        """Map the tasks over shards, and return those that ``merge`` has to follow."""
        last: list[BaseOperator] = []

        @task_group(group_id=group_id, default_args=dict(self.default_args))
        def on_cluster(conn_id: str, application: str, parameters: Any, shard: Any) -> None:
            last.extend(self._tasks(conn_id, application, parameters))

        on_cluster.expand_kwargs(shards)
        return last

    def outcomes(self, group_id: str, planned: Sequence[PlannedShard]) -> list[tuple[Shard, results.ShardResult]]:
        """The outcome of each shard that the tasks of this group were mapped over."""
        context = get_current_context()
        siblings = context["ti"].task_id.rpartition(".")[0]
        shards = [Shard(**each["shard"]) for each in planned]
        found = results.MappedTasks.ask(context, f"{siblings}.{group_id}", serves=self.collect is not None)
        return [(shard, found.outcome(index, shard)) for index, shard in enumerate(shards)]

    def _tasks(self, conn_id: Any, application: Any, parameters: Any) -> list[BaseOperator]:
        """Make the tasks, and return those that ``merge`` has to follow.

        Airflow fails the run if a task fails that only teardowns follow, and does not allow ``merge``, which runs
        whatever the outcome, to follow a setup.
        """
        submit = partial(RaySubmitJobOperator, task_id="submit", conn_id=conn_id, parameters=parameters)
        polling: dict[str, Any] = {"deferrable": True, "poke_interval": pacing.FAN_OUT_INTERVAL_SECONDS, "timeout": DAY}
        wait = partial(RayJobSensor, task_id="wait", conn_id=conn_id, **polling)
        job = self._noted(self.job)
        if self.collect is None:
            # The job belongs to submit while it runs; wait adds how long it took.
            submitted: BaseOperator = submit(**{"deferrable": True, **job})
            waited: BaseOperator = wait(
                submission_id=_id_of(submitted), fetch_logs=False, **self._noted({}, follows=True)
            )
            submitted >> waited
            return [submitted, waited]
        return self._serving(submit(wait_for_completion=False, **job), wait, conn_id, application)

    def _serving(
        self, submitted: BaseOperator, wait: partial[RayJobSensor], conn_id: Any, application: Any
    ) -> list[BaseOperator]:
        """Take the answer of a job that serves it, and release the job.

        ``release`` and ``wait`` are teardowns of ``submit``: they follow every submitted job, so that none is left
        behind when ``collect`` fails or the run is marked failed.
        """
        submission_id = _id_of(submitted)
        serve = partial(RayServeOperator, conn_id=conn_id, application=application, submission_id=submission_id)
        waiting = {"deferrable": True, "poll_interval": pacing.SERVE_INTERVAL_SECONDS, "timeout": DAY}
        told = self._noted({}, follows=True)
        collect = last = serve(task_id="collect", **{**waiting, **self._noted(self.collect or {}, follows=True)})
        submitted >> collect
        if self.release is not None:
            calling: dict[str, Any] = {"method": "POST", "timeout": MINUTE, "retries": 0}
            calling |= self._noted(self.release, follows=True)
            last = serve(task_id="release", **calling).as_teardown(setups=submitted)
            collect >> last
        waited = wait(submission_id=submission_id, **told).as_teardown(setups=submitted)
        last >> waited
        return [collect, waited]

    def _noted(self, fields: Mapping[str, Any], *, follows: bool = False) -> dict[str, Any]:
        """Arguments of a task, with the callback that tells ``merge`` why it failed ahead of the author's own.

        :param follows: the task mostly fails because an earlier one did. What the author set for all tasks is then
            called for the first of them alone.
        """
        if "on_failure_callback" in fields:
            return {**fields, "on_failure_callback": [note_fault, *callbacks(fields)]}
        of_all = callbacks(self.default_args)
        return {**fields, "on_failure_callback": [note_fault, *(map(UnlessTold, of_all) if follows else of_all)]}


def retry_defaults(given: Mapping[str, Any], *, cluster_faults: bool = True) -> dict[str, Any]:
    """Retries of the tasks of a fan-out, unless the author has set them for the Dag or an enclosing group.

    Deferred tasks need retries, since Airflow 3.3.2 sometimes fails a deferral by itself; a retry finds its job again.

    :param given: default arguments of the author.
    :param cluster_faults: retry when a cluster is unavailable for longer than ``[ray] fault_budget``, or has lost the
        job.
    """
    delay = given.get("retry_delay", timedelta(seconds=5))
    first = seconds("retry_delay", delay, zero=True)
    policy = RayRetryPolicy(first, max(first, LONGEST_DELAY_SECONDS), cluster_faults=cluster_faults)
    return unless_given({"retries": 3, "retry_delay": delay, "retry_policy": policy}, given)


def unless_given(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of our defaults that the author has not set."""
    return {name: value for name, value in defaults.items() if name not in given}


def _id_of(submitted: BaseOperator) -> Any:
    job: Any = submitted.output
    return job["submission_id"]
