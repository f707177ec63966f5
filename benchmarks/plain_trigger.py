"""Triggers of the benchmark: one that knows nothing of the others, and one that measures the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

PROBE_SECONDS = 0.02


class PlainTrigger(BaseTrigger):
    """What a trigger does that asks for its own job alone, with the same client.

    :param conn_id: connection of the cluster.
    :param submission_id: the job.
    :param poll_interval: seconds between two looks.
    """

    def __init__(self, *, conn_id: str, submission_id: str, poll_interval: float) -> None:
        super().__init__()
        self.conn_id, self.submission_id, self.poll_interval = conn_id, submission_id, poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        arguments = {"conn_id": self.conn_id, "submission_id": self.submission_id, "poll_interval": self.poll_interval}
        return "benchmarks.plain_trigger.PlainTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from airflow_provider_ray.client.api.ray_client import RayClient
        from airflow_provider_ray.client.states import is_terminal
        from airflow_provider_ray.hooks.ray import RayHook

        async with RayClient(await RayHook(self.conn_id).aget_config()) as client:
            job = await client.jobs.get(self.submission_id)
            while not is_terminal(job.status):
                await asyncio.sleep(self.poll_interval)
                job = await client.jobs.get(self.submission_id)
        yield TriggerEvent({"job": job.to_json()})


class LagProbe(BaseTrigger):
    """Writes down every second how late it was woken."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "benchmarks.plain_trigger.LagProbe", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while True:
            lags, until = [], time.monotonic() + 1
            while time.monotonic() < until:
                before = time.monotonic()
                await asyncio.sleep(PROBE_SECONDS)
                lags.append(time.monotonic() - before - PROBE_SECONDS)
            self.log.info("lags %s", " ".join(f"{lag:.4f}" for lag in lags))
        yield TriggerEvent({})
