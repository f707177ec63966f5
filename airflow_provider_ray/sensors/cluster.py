"""Wait until Ray clusters are healthy, or have room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseSensorOperator, PokeReturnValue, conf

from airflow_provider_ray.clusters.selection import check_clusters, resolve
from airflow_provider_ray.compat.tasks import fail_sensor, has_checked_before
from airflow_provider_ray.compat.templates import is_literal, value_of
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.triggers.cluster import RayClusterTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_ray.client.clusters.survey import Findings, Rejections, Room
    from airflow_provider_ray.clusters.selection import Clusters
    from airflow_provider_ray.compat.templates import Resolvable


class RayClusterSensor(BaseSensorOperator):
    """Wait until clusters are healthy (:mod:`airflow_provider_ray.client.clusters.health`), and optionally have room.

    The XCom holds what is known about each cluster that meets the conditions, by connection id, in the form of
    :class:`~airflow_provider_ray.client.api.capacity.Capacity`. A value that is unknown never meets a condition. The
    sensor keeps waiting for a cluster that does not answer, and fails at once for an invalid connection or rejected
    credentials. With ``soft_fail``, the task is skipped instead, except for invalid arguments and connections.

    Nothing is reserved: what is free now may be taken by the time the next task starts.

    :param conn_id: connections of type ``ray``: an id, a list of ids, a comma-separated string, or a label selector
        such as ``site=hpc,gpu=true``. (templated)
    :param free_resources: what must be free on a cluster, such as ``{"CPU": 4, "GPU": 1}``, under Ray's names; memory
        in bytes. (templated)
    :param max_pending_jobs: maximum number of PENDING jobs on a cluster; None for no limit. (templated)
    :param max_running_jobs: maximum number of RUNNING jobs on a cluster; None for no limit. (templated)
    :param policy: how many of several clusters must meet the conditions: "all", "any" or a number. (templated)
    :param deferrable: wait in the triggerer; default ``[operators] default_deferrable``.
    :param poke_interval: longest time between two checks of the clusters, in seconds or as a ``timedelta``.
    :param timeout: time after which the sensor gives up, in seconds or as a ``timedelta``; default a week. Airflow does
        not retry a sensor that timed out.
    :raises RayConfigError: in the Dag file or in a run, when an argument or a connection cannot work.
    :raises RayRequestError: when a cluster rejects the request.
    :raises AirflowSkipException: with ``soft_fail``, instead of a failure.
    :raises AirflowSensorTimeout: when too few clusters met the conditions within ``timeout``.
    """

    template_fields: Sequence[str] = ("conn_id", "free_resources", "max_pending_jobs", "max_running_jobs", "policy")
    template_fields_renderers: ClassVar[dict[str, str]] = {"free_resources": "json"}
    ui_color = "#dff1fb"

    def __init__(
        self,
        *,
        conn_id: Clusters = RayHook.default_conn_name,
        free_resources: Mapping[str, float | str] | str | None = None,
        max_pending_jobs: int | str | None = None,
        max_running_jobs: int | str | None = None,
        policy: int | str | Resolvable = "all",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float | timedelta = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.conn_id = conn_id
        self.free_resources = free_resources
        self.max_pending_jobs = max_pending_jobs
        self.max_running_jobs = max_running_jobs
        self.policy = policy
        self.deferrable = deferrable
        self._check_literals()
        self._said = ""
        self._rejections: Rejections | None = None

    def execute(self, context: Context) -> Any:
        """Wait in the chosen mode; deferrable mode defers only if the clusters do not meet the conditions yet."""
        if not self.deferrable:
            return super().execute(context)
        conn_ids = resolve(self.conn_id)
        required = self._required(conn_ids)
        findings = self._look(conn_ids)
        if not findings.is_over(required):
            self.defer(trigger=self._trigger(conn_ids, required), method_name="execute_complete")
        return self._result(findings, required)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Turn the trigger's event into the result or error of the other modes."""
        from airflow_provider_ray.client.clusters.survey import Findings

        return self._result(Findings.from_json(event), event["required"])

    def poke(self, context: Context) -> PokeReturnValue:
        """Check the clusters once."""
        conn_ids = resolve(self.conn_id)
        required = self._required(conn_ids)
        findings = self._look(conn_ids, conn_ids if has_checked_before(context) else ())
        if findings.is_over(required):
            return PokeReturnValue(is_done=True, xcom_value=self._result(findings, required))
        self._said = findings.tell(self.log, self._said)
        return PokeReturnValue(is_done=False)

    def _look(self, conn_ids: Sequence[str], accepted: Sequence[str] = ()) -> Findings:
        from airflow_provider_ray.client.clusters.survey import Rejections, find, survey
        from airflow_provider_ray.client.sync import run_sync

        room = self._room()
        configs = {conn_id: RayHook(conn_id).get_config() for conn_id in conn_ids}
        # In reschedule mode, each poke starts with an empty one, and only the sensor's own timeout ends the wait.
        self._rejections = self._rejections or Rejections()
        self._rejections.accepted.update(accepted)
        answers = run_sync(partial(survey, configs, self._rejections.accepted))
        return find(self._rejections.judged(answers), room)

    def _result(self, findings: Findings, required: int) -> dict[str, Any]:
        from airflow_provider_ray.client.errors import RayConfigError, RayError

        try:
            return dict(findings.result(required))
        except RayConfigError:
            raise
        except RayError as error:
            fail_sensor(self, error, timed_out=findings.fault is None)

    def _trigger(self, conn_ids: Sequence[str], required: int) -> RayClusterTrigger:
        return RayClusterTrigger(
            conn_ids=conn_ids,
            room=self._room().to_json(),
            required=required,
            poll_interval=self.poke_interval,
            end_time=time() + self.timeout,
        )

    def _check_literals(self) -> None:
        from airflow_provider_ray.client.values import resources, whole_number
        from airflow_provider_ray.clusters.quorum import check_wanted

        number = check_clusters(self.conn_id)
        if is_literal(self.policy):
            check_wanted(self.policy, number)
        if is_literal(self.free_resources):
            resources("free_resources", value_of(self.free_resources) or {})
        for name in ("max_pending_jobs", "max_running_jobs"):
            if is_literal(given := getattr(self, name)):
                whole_number(name, given)

    def _required(self, conn_ids: Sequence[str]) -> int:
        from airflow_provider_ray.clusters.quorum import how_many

        return how_many(self.policy, len(conn_ids))

    def _room(self) -> Room:
        from airflow_provider_ray.client.clusters.survey import Room

        return Room.from_fields(
            free_resources=value_of(self.free_resources),
            max_pending_jobs=self.max_pending_jobs,
            max_running_jobs=self.max_running_jobs,
        )
