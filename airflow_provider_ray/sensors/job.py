"""Wait for a job that something else submitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseSensorOperator, PokeReturnValue, RetryPolicy, conf

from airflow_provider_ray.clusters.selection import check_clusters, resolve_one
from airflow_provider_ray.compat.tasks import fail_sensor, has_checked_before
from airflow_provider_ray.compat.templates import is_literal, value_of
from airflow_provider_ray.hooks import options
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.jobs import memory
from airflow_provider_ray.jobs.retry_policy import RayRetryPolicy
from airflow_provider_ray.links import RayJobLink
from airflow_provider_ray.task_log.position import XComPosition
from airflow_provider_ray.triggers.job import RayJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_ray.client.jobs.outcome import Outcome
    from airflow_provider_ray.clusters.selection import Clusters


ONLY_OTHER_FAULTS = RayRetryPolicy(delay=None)


class RayJobSensor(BaseSensorOperator):
    """Wait until a job has succeeded; fail if it failed or was stopped.

    The XCom is ``{"conn_id", "submission_id", "status", "seconds"}``. A sensor does not own the job: nothing that
    happens to the task stops it. Unless the task has a ``retry_policy``, a job that failed or was stopped fails the
    task without a retry. With ``soft_fail``, the task is skipped instead of failing, whatever the job or the cluster
    does; an invalid argument or connection still fails it.

    :param submission_id: the job. (templated)
    :param metadata: instead of an id, entries that the job's metadata must contain; the newest such job counts, and
        the sensor waits for one to appear. Jobs that another Airflow submitted to the same cluster are passed over,
        unless ``airflow_installation`` is one of the entries. (templated)
    :param conn_id: connection of type ``ray``, or a label selector that only one cluster matches. (templated)
    :param deferrable: wait in the triggerer; default ``[operators] default_deferrable``.
    :param fetch_logs: write the driver log to the task log; in poke and reschedule mode, only once the job has ended.
        False if another task shows the log already.
    :param poke_interval: longest time between two checks of the job, in seconds or as a ``timedelta``.
    :param retry_policy: by default, what has become of the job is final, and other faults use up ``retries``.
    :param timeout: time after which the sensor gives up, in seconds or as a ``timedelta``; default a week. Airflow does
        not retry a sensor that timed out.
    :raises RayRequestError: when the cluster rejects the request, or is unavailable for longer than ``[ray]
        fault_budget``.
    :raises RayJobLost: when the cluster has forgotten the job, or the node of its driver is gone.
    :raises AirflowSkipException: with ``soft_fail``, instead of any other error except RayConfigError.
    :raises RayConfigError: when neither or both of ``submission_id`` and ``metadata`` are given.
    :raises RayJobFailed: when the job failed.
    :raises RayJobStopped: when the job was stopped.
    :raises AirflowSensorTimeout: when the job had not ended within ``timeout``.
    """

    template_fields: Sequence[str] = ("conn_id", "submission_id", "metadata")
    template_fields_renderers: ClassVar[dict[str, str]] = {"metadata": "json"}
    operator_extra_links = (RayJobLink(),)
    ui_color = "#dff1fb"

    def __init__(
        self,
        *,
        submission_id: str | None = None,
        metadata: Mapping[str, Any] | str | None = None,
        conn_id: Clusters = RayHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        fetch_logs: bool = True,
        poke_interval: float | timedelta = 10,
        retry_policy: RetryPolicy | None = ONLY_OTHER_FAULTS,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, retry_policy=retry_policy, **kwargs)
        check_clusters(conn_id, one=True)
        self.submission_id = submission_id
        self.metadata = metadata
        self.conn_id = conn_id
        self.deferrable = deferrable
        self.fetch_logs = fetch_logs
        self._accepted = False
        if is_literal(submission_id) and is_literal(metadata):
            self._target()

    def execute(self, context: Context) -> Any:
        """Wait in the chosen mode; deferrable mode defers only if the job has not ended yet."""
        if not self.deferrable:
            return super().execute(context)
        conn_id = resolve_one(self.conn_id)
        # The argument may be a selector, and the page has to know which cluster it stands for.
        context["ti"].xcom_push(key=memory.CONN_ID_KEY, value=conn_id)
        outcome = self._look(conn_id, fault_budget=0)
        if outcome is None or (outcome.fault is not None and outcome.fault.transient):
            if self.fetch_logs:
                XComPosition.begin(context)
            self.defer(trigger=self._trigger(conn_id), method_name="execute_complete")
        return self._result(context, conn_id, outcome)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Turn the trigger's event into the result or error of the other modes."""
        from airflow_provider_ray.client.jobs.outcome import Outcome

        return self._result(context, event["conn_id"], Outcome.from_json(event))

    def poke(self, context: Context) -> PokeReturnValue:
        """Look at the job once."""
        self._accepted = self._accepted or has_checked_before(context)
        conn_id = resolve_one(self.conn_id)
        outcome = self._look(conn_id)
        if outcome is None:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._result(context, conn_id, outcome))

    def _look(self, conn_id: str, fault_budget: float | None = None) -> Outcome | None:
        from airflow_provider_ray.client.jobs.outcome import look

        looking = partial(
            look,
            **self._target(),
            installation=options.installation(),
            logger=self.log if self.fetch_logs else None,
            fault_budget=fault_budget,
        )
        hook = RayHook(conn_id, accepted=self._accepted)
        outcome = hook.run(looking)
        # If the credentials are rotated, the next poke waits for the new ones.
        self._accepted = hook.accepted
        return outcome

    def _result(self, context: Context, conn_id: str, outcome: Outcome) -> dict[str, Any]:
        from airflow_provider_ray.client.errors import RayError, RayJobTimeout

        config = RayHook(conn_id).get_config()
        if outcome.job is not None:
            RayJobLink().store(context["ti"], config.job_url(str(outcome.job.submission_id)))
        try:
            job = outcome.result(conn_id, config)
        except RayError as error:
            fail_sensor(self, error, timed_out=isinstance(error, RayJobTimeout))
        self.log.info("Ray job %s on %s: %s", job.submission_id, conn_id, job.summary)
        return {
            "conn_id": conn_id,
            "submission_id": job.submission_id,
            "status": job.status,
            "seconds": job.seconds,
        }

    def _trigger(self, conn_id: str) -> RayJobTrigger:
        return RayJobTrigger(
            role="observer",
            conn_id=conn_id,
            **self._target(),
            poll_interval=self.poke_interval,
            end_time=time() + self.timeout,
            fetch_logs=self.fetch_logs,
        )

    def _target(self) -> dict[str, Any]:
        """Which job is meant: its id, or entries of its metadata."""
        from airflow_provider_ray.client.api.job_spec import check_known_id
        from airflow_provider_ray.client.errors import RayConfigError
        from airflow_provider_ray.client.values import strings

        if bool(self.submission_id) == bool(self.metadata):
            got = "both" if self.submission_id else "neither"
            raise RayConfigError("submission_id and metadata", got, "one of them")
        if self.submission_id:
            check_known_id(self.submission_id)
            return {"submission_id": self.submission_id}
        return {"metadata": strings("metadata", value_of(self.metadata))}
