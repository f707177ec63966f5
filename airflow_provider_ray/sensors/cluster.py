"""Wait until Ray clusters are healthy, or have room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseSensorOperator, PokeReturnValue, conf
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException

from airflow_provider_ray.clusters.selection import connections
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.triggers.cluster import RayClusterTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_ray.client.clusters.survey import Findings, Room


class RayClusterSensor(BaseSensorOperator):
    """Wait until clusters are healthy (:mod:`airflow_provider_ray.client.clusters.health`), or also have room.

    The XCom has what is known of the clusters that are ready, by connection id, as
    :class:`~airflow_provider_ray.client.api.capacity.Capacity` describes it. What is unknown is never enough. The
    sensor waits for a cluster that does not answer; a wrong connection or refused credentials fail it at once.
    ``soft_fail`` skips the task instead of failing it, except for wrong arguments and connections.

    Nothing is reserved: what is free now may be taken when the next task starts.

    :param conn_id: connection of type ``ray``, or several. (templated)
    :param free_resources: what must be free on a cluster, such as ``{"CPU": 4, "GPU": 1}``; by Ray's names, memory in
        bytes. (templated)
    :param max_pending_jobs: how many jobs may be PENDING on a cluster at most; None for any number. (templated)
    :param max_running_jobs: how many jobs may be RUNNING on a cluster at most; None for any number. (templated)
    :param require: of several clusters, how many must be enough: "all", "any" or a number. (templated)
    :param deferrable: wait in the triggerer; default ``[operators] default_deferrable``.
    :param poke_interval: longest time between two looks at the clusters, in seconds.
    :param timeout: seconds until the sensor gives up, default a week; Airflow does not retry that.
    :raises RayConfigError: when an argument or connection cannot work.
    :raises RayRequestError: when a cluster refuses us.
    :raises AirflowSkipException: with ``soft_fail``, instead of that.
    :raises AirflowSensorTimeout: when too few clusters were enough within ``timeout``.
    """

    template_fields: Sequence[str] = ("conn_id", "free_resources", "max_pending_jobs", "max_running_jobs", "require")
    template_fields_renderers: ClassVar[dict[str, str]] = {"free_resources": "json"}
    ui_color = "#dff1fb"

    def __init__(
        self,
        *,
        conn_id: str | Sequence[str] = RayHook.default_conn_name,
        free_resources: Mapping[str, float | str] | None = None,
        max_pending_jobs: int | str | None = None,
        max_running_jobs: int | str | None = None,
        require: str | int = "all",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.conn_id = conn_id
        self.free_resources = free_resources
        self.max_pending_jobs = max_pending_jobs
        self.max_running_jobs = max_running_jobs
        self.require = require
        self.deferrable = deferrable
        self._said = ""

    def execute(self, context: Context) -> Any:
        """Wait in the chosen mode; deferrable only if the clusters are not enough yet."""
        if not self.deferrable:
            return super().execute(context)
        findings = self._look()
        if not findings.is_over(self._required()):
            self.defer(trigger=self._trigger(), method_name="execute_complete")
        return self._result(findings)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Turn the trigger's event into the result or error that the other modes have."""
        from airflow_provider_ray.client.clusters.survey import Findings

        return self._result(Findings.from_json(event))

    def poke(self, context: Context) -> PokeReturnValue:
        """Look at the clusters once."""
        findings = self._look()
        if findings.is_over(self._required()):
            return PokeReturnValue(is_done=True, xcom_value=self._result(findings))
        self._said = findings.tell(self.log, self._said)
        return PokeReturnValue(is_done=False)

    def _look(self) -> Findings:
        from airflow_provider_ray.client.clusters.survey import find, survey
        from airflow_provider_ray.client.sync import run_sync

        room, _ = self._room(), self._required()
        configs = {conn_id: RayHook(conn_id).get_config() for conn_id in self._conn_ids()}
        return find(run_sync(partial(survey, configs)), room)

    def _result(self, findings: Findings) -> dict[str, Any]:
        from airflow_provider_ray.client.errors import RayConfigError, RayError

        try:
            return dict(findings.result(self._required()))
        except RayConfigError:
            raise
        except RayError as error:
            # Airflow applies soft_fail, and after a deferral never_fail, to its own exceptions only.
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(error)) from error
            if findings.fault is None:
                raise AirflowSensorTimeout(str(error)) from error
            raise

    def _trigger(self) -> RayClusterTrigger:
        return RayClusterTrigger(
            conn_ids=self._conn_ids(),
            room=self._room().to_json(),
            required=self._required(),
            poll_interval=self.poke_interval,
            end_time=time() + self.timeout,
        )

    def _conn_ids(self) -> list[str]:
        return list(connections(self.conn_id))

    def _required(self) -> int:
        from airflow_provider_ray.client.clusters.quorum import how_many

        return how_many(self.require, len(self._conn_ids()), field="require")

    def _room(self) -> Room:
        from airflow_provider_ray.client.clusters.survey import Room

        return Room.from_fields(
            free_resources=self.free_resources,
            max_pending_jobs=self.max_pending_jobs,
            max_running_jobs=self.max_running_jobs,
        )
