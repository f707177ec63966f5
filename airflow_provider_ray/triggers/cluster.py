"""Wait in the triggerer until Ray clusters have room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.task_log.drain import CountedLogger, pipe
from airflow_provider_ray.triggers.job import EARLIEST_EVENT_SECONDS

if TYPE_CHECKING:
    from airflow_provider_ray.client.clusters.survey import Findings

log = logging.getLogger(__name__)


class RayClusterTrigger(BaseTrigger):
    """Look at clusters until enough of them have room or the time is up, and fire one event, ``Findings`` as JSON.

    It makes no verdict on what it has found: that is the sensor's.

    :param conn_ids: connections of the clusters.
    :param room: what each cluster must have, a ``Room`` as JSON.
    :param required: how many clusters must have it.
    :param poll_interval: longest time between two looks, in seconds.
    :param end_time: when to give up, in seconds since the epoch.
    """

    def __init__(
        self,
        *,
        conn_ids: Sequence[str],
        room: Mapping[str, Any],
        required: int,
        poll_interval: float,
        end_time: float,
    ) -> None:
        super().__init__()
        self.conn_ids = conn_ids
        self.room = room
        self.required = required
        self.poll_interval = poll_interval
        self.end_time = end_time

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "airflow_provider_ray.triggers.cluster.RayClusterTrigger",
            {
                "conn_ids": self.conn_ids,
                "room": self.room,
                "required": self.required,
                "poll_interval": self.poll_interval,
                "end_time": self.end_time,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from airflow_provider_ray.client.clusters.survey import Findings
        from airflow_provider_ray.client.errors import RayError, RayTriggerError

        not_before = monotonic() + EARLIEST_EVENT_SECONDS
        with pipe.life():
            try:
                findings = await self._watch()
            except RayError as fault:
                findings = Findings(fault=fault)
            except Exception as error:
                log.exception("The clusters %s can no longer be watched", self.conn_ids)
                findings = Findings(fault=RayTriggerError(f"{type(error).__name__}: {error}"))
            await asyncio.sleep(not_before - monotonic())
            event = findings.to_json()
            yield TriggerEvent(event)
            pipe.count(repr(event))

    async def _watch(self) -> Findings:
        from airflow_provider_ray.client.clusters.survey import Room, wait_for_room
        from airflow_provider_ray.client.sharing.shared_client import shared_client

        # Airflow's look-up would swallow the message of a cancellation.
        hooks = {conn_id: RayHook(conn_id) for conn_id in self.conn_ids}
        configs = {
            conn_id: await asyncio.shield(asyncio.ensure_future(hook.aget_config())) for conn_id, hook in hooks.items()
        }
        async with AsyncExitStack() as stack:
            opened = {
                conn_id: await stack.enter_async_context(shared_client(config)) for conn_id, config in configs.items()
            }
            return await wait_for_room(
                opened,
                Room.from_fields(**self.room),
                required=self.required,
                poll_interval=self.poll_interval,
                timeout=self.end_time - time(),
                logger=CountedLogger(self.log),
            )
