"""Undocumented parts of Airflow that run with triggers."""

from __future__ import annotations

import asyncio
import fcntl
import io
import logging
import termios
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

# mask_secret for an event loop. Delete when airflow.sdk or common-compat exports it (Airflow 3.3 does not).
from airflow.sdk.log import amask_secret

from airflow_provider_ray.compat.tasks import task_state

if TYPE_CHECKING:
    from airflow_provider_ray.compat.tasks import RuntimeTaskInstanceProtocol

__all__ = ["amask_secret", "log_stream", "looked_up", "state_of", "unread_bytes"]

T = TypeVar("T")


def log_stream() -> io.FileIO | None:
    """The socket through which all triggers of this process send their log lines to the triggerer's supervisor.

    It is the stream of the root logger's handler, and structlog writes to the same object (Airflow 3.3). None outside
    of a triggerer. Delete when Airflow keeps what a trigger has logged before it ended: 3.3.2 drops what the
    supervisor has not read by then.
    """
    for handler in logging.getLogger().handlers:
        # The text layer that logging writes to stands around the socket that structlog writes to.
        stream = getattr(getattr(handler, "stream", None), "stream", None)
        if isinstance(stream, io.FileIO):
            return stream
    return None


def unread_bytes(stream: io.FileIO) -> int:
    """At least as many bytes as the other end of a socket has not read; 0 where this cannot be told.

    Linux counts buffers, so the number is rounded up, never down (``SIOCOUTQ`` in unix(7)).
    """
    buffer = bytearray(4)
    try:
        fcntl.ioctl(stream.fileno(), termios.TIOCOUTQ, buffer)
    except (OSError, ValueError):
        return 0
    return int.from_bytes(buffer, "little")


async def looked_up(look_up: Coroutine[Any, Any, T]) -> T:
    """The result of a look-up in Airflow, shielded from the cancellation of a trigger.

    Airflow's look-ups swallow the message of a cancellation (asgiref does, Airflow 3.3), which alone tells the
    triggerer to call ``on_kill``. Delete when the triggerer decides by something else, or the look-ups keep the
    message.
    """
    return await asyncio.shield(asyncio.ensure_future(look_up))


async def state_of(task_instance: RuntimeTaskInstanceProtocol) -> str | None:
    """The current state of a trigger's task.

    The look-up blocks and is meant for tasks, but works unbound in a triggerer (Airflow 3.3). Delete when triggers are
    not killed while they merely move to another triggerer (apache/airflow#73454).
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from asgiref.sync import sync_to_async

    ti: Any = task_instance
    states = await sync_to_async(RuntimeTaskInstance.get_task_states)(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    return task_state(states, ti.run_id, ti.task_id, ti.map_index)
