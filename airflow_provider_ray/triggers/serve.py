"""Wait for a Serve application in the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import time
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.task_log.drain import pipe
from airflow_provider_ray.triggers.job import EARLIEST_EVENT_SECONDS


class RayServeTrigger(BaseTrigger):
    """Wait until a Serve application or route can be called and fire one event.

    It does not call the application: a trigger may run in two triggerers for a while, and a call must not happen
    twice. That is the operator's, back on a worker.

    :param conn_id: connection of the cluster.
    :param application: name of the application, or None.
    :param path: path below the application's route prefix, or from Serve's root.
    :param submission_id: the job that is to deploy the application; waiting ends when the job does.
    :param poll_interval: longest time between two looks, in seconds.
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

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "airflow_provider_ray.triggers.serve.RayServeTrigger",
            {
                "conn_id": self.conn_id,
                "application": self.application,
                "path": self.path,
                "submission_id": self.submission_id,
                "poll_interval": self.poll_interval,
                "end_time": self.end_time,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from airflow_provider_ray.client.errors import RayError

        with pipe.life():
            await asyncio.sleep(EARLIEST_EVENT_SECONDS)
            fault: list[str] | None = None
            try:
                await self._wait()
            except RayError as error:
                fault = error.to_json()
            event = {"fault": fault, "end_time": self.end_time}
            yield TriggerEvent(event)
            pipe.count(repr(event))

    async def _wait(self) -> None:
        from airflow_provider_ray.client.api.ray_client import RayClient
        from airflow_provider_ray.client.serving.application import ServeTarget

        async with RayClient(await RayHook(self.conn_id).aget_config()) as client:
            target = ServeTarget(client, self.application, self.path, self.submission_id)
            await target.wait(poll_interval=self.poll_interval, timeout=max(self.end_time - time(), 0))
