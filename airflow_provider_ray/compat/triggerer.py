"""Undocumented parts of Airflow that run with triggers."""

from __future__ import annotations

import fcntl
import io
import logging
import termios
from typing import TYPE_CHECKING, Any

from airflow_provider_ray.compat.tasks import task_state

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol


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
