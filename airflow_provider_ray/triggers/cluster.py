"""Wait in the triggerer until Ray clusters have room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from airflow_provider_ray.triggers.base import FAULT, READY, TIMED_OUT, RayTrigger, until

if TYPE_CHECKING:
    from airflow_provider_ray.client.clusters.survey import Findings
    from airflow_provider_ray.client.errors import RayError


class RayClusterTrigger(RayTrigger):
    """Check clusters until enough of them have room or the time is up, and fire one event, ``Findings`` as JSON.

    The event is ``ready``, ``timed_out`` or ``fault``. The sensor draws the conclusion from the findings.

    :param conn_ids: connections of the clusters.
    :param room: what each cluster must have, a ``Room`` as JSON.
    :param required: how many clusters must have it.
    :param poll_interval: longest time between two checks, in seconds.
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

    async def _wait(self) -> dict[str, Any]:
        from airflow_provider_ray.client.clusters.survey import Room, wait_for_room

        async with AsyncExitStack() as stack:
            clients = {
                conn_id: await stack.enter_async_context(await self._client(conn_id, accepted=False))
                for conn_id in self.conn_ids
            }
            findings = await wait_for_room(
                clients,
                Room.from_fields(**self.room),
                required=self.required,
                poll_interval=self.poll_interval,
                timeout=until(self.end_time),
                logger=self.log,
            )
        return self._event(findings)

    def _failed(self, fault: RayError) -> dict[str, Any]:
        from airflow_provider_ray.client.clusters.survey import Findings

        return self._event(Findings(fault=fault))

    def _event(self, findings: Findings) -> dict[str, Any]:
        happened = FAULT if findings.fault else READY if findings.is_over(self.required) else TIMED_OUT
        return {"event": happened, "required": self.required, **findings.to_json()}
