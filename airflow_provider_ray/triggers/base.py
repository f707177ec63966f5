"""What the triggers have in common: how they start, look up connections, fail and fire."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from inspect import signature
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_ray.client import pacing
from airflow_provider_ray.compat.triggerer import looked_up
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.task_log.drain import has_read, log_stream

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.ray_client import RayClient
    from airflow_provider_ray.client.errors import RayError

log = logging.getLogger(__name__)

# Values of ``event`` in an event: what happened.
SUBMITTED = "submitted"
ENDED = "ended"
READY = "ready"
TIMED_OUT = "timed_out"
FAULT = "fault"


class RayTrigger(BaseTrigger):
    """Wait for something on Ray clusters and fire one event, which says in one word under ``event`` what happened.

    Any error becomes an event as well: if a trigger raises an exception, the operator, which has to take care of the
    job, learns nothing from it.
    """

    # Whether the trigger has just logged something that must not be lost.
    _has_last_lines = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and the arguments of its constructor, which are attributes of the same name."""
        kind = type(self)
        return f"{kind.__module__}.{kind.__qualname__}", {
            name: getattr(self, name) for name in signature(kind).parameters
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and fire one event."""
        from airflow_provider_ray.client.errors import RayError, RayTriggerError

        not_before = monotonic() + pacing.EARLIEST_EVENT_SECONDS
        # Counting starts here: a logger that was used before writes past the count.
        log_stream()
        try:
            event = await self._wait()
        except RayError as fault:
            event = self._failed(fault)
        except Exception as error:
            log.exception("The trigger failed")
            event = self._failed(RayTriggerError(f"{type(error).__name__}: {error}"))
        if self._has_last_lines:
            await has_read(0, pacing.LOG_DRAIN_SECONDS)
        await asyncio.sleep(not_before - monotonic())
        yield TriggerEvent(event)

    @abstractmethod
    async def _wait(self) -> dict[str, Any]:
        """The event when waiting is over.

        :raises RayError: for a fault that ends it.
        """

    @abstractmethod
    def _failed(self, fault: RayError) -> dict[str, Any]:
        """The event for a fault."""

    async def _client(self, conn_id: str, *, accepted: bool) -> AbstractAsyncContextManager[RayClient]:
        """The client that all triggers of this process share for a cluster.

        :param accepted: the cluster has accepted the credentials before, so a rejection is a passing fault.
        """
        from airflow_provider_ray.client.sharing.shared_client import shared_client

        # A hook of its own: the shared client may outlive this trigger.
        look_up = RayHook(conn_id).aget_config
        return shared_client(await looked_up(look_up()), look_up, conn_id=conn_id, accepted=accepted)


def until(moment: float) -> float:
    """Seconds from now to a moment in seconds since the epoch."""
    return moment - time()
