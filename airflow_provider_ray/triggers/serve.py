"""Wait for a Serve application in the triggerer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_ray.triggers.base import FAULT, READY, RayTrigger, until

if TYPE_CHECKING:
    from airflow_provider_ray.client.errors import RayError


class RayServeTrigger(RayTrigger):
    """Wait until a Serve application or route can be called and fire one event: ``ready`` or ``fault``.

    It does not call the application: a trigger may run in two triggerers for a while, and a call must not happen
    twice. The operator makes the call, back on a worker.

    :param conn_id: connection of the cluster.
    :param application: name of the application, or None.
    :param path: path below the application's route prefix, or from Serve's root.
    :param submission_id: the job that should deploy the application; waiting ends when the job does.
    :param poll_interval: longest time between two checks, in seconds.
    :param end_time: when to give up, in seconds since the epoch.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        application: str | None,
        path: str,
        submission_id: str | None,
        poll_interval: float,
        end_time: float,
    ) -> None:
        super().__init__()
        self.conn_id = conn_id
        self.application = application
        self.path = path
        self.submission_id = submission_id
        self.poll_interval = poll_interval
        self.end_time = end_time

    async def _wait(self) -> dict[str, Any]:
        from airflow_provider_ray.client.serving.application import ServeRoute

        # The operator has reached the cluster before it deferred.
        async with await self._client(self.conn_id, accepted=True) as client:
            route = ServeRoute(client, self.application, self.path, self.submission_id, logger=self.log)
            await route.wait(poll_interval=self.poll_interval, timeout=until(self.end_time))
        return self._event(READY, None)

    def _failed(self, fault: RayError) -> dict[str, Any]:
        return self._event(FAULT, fault)

    def _event(self, happened: str, fault: RayError | None) -> dict[str, Any]:
        said = None if fault is None else fault.to_json()
        return {"event": happened, "fault": said, "conn_id": self.conn_id, "end_time": self.end_time}
