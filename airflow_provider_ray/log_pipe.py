"""How much of what the job triggers have logged Airflow has taken on its way into the task logs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from structlog.contextvars import get_contextvars

# What Airflow reads in a round.
ROUND_BYTES = 4096
# What Airflow adds to a line beside the names of the task.
RECORD_BYTES = 250
# What a socket holds where the kernel does not say it: Linux's default.
SOCKET_BYTES = 212_992

T = TypeVar("T")


class LogPipe(logging.Handler):
    """Counts how many bytes this package has logged in this process, and how many of them Airflow must have taken.

    The process that writes the triggers' logs reads 4096 bytes of what all of them have logged in the round in which it
    answers one request, and what it has not read when a trigger ends is not in the task log (Airflow 3.3.2,
    ``TriggerRunnerSupervisor``). Other triggers are not counted.

    :param capacity: more than the pipe between the two processes holds, as it is counted here, in bytes.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.written = self.taken = 0
        self._capacity = capacity
        # What one has asked for, the others need not ask for.
        self.asking = asyncio.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record."""
        self.count(self.format(record))
        if record.exc_text:
            # Airflow's JSON has more around each of a traceback's lines.
            self.add(len(record.exc_text))

    def count(self, text: str = "") -> None:
        """Count a record that is logged of the task whose trigger runs now; at most twice what it has."""
        names = get_contextvars()
        # Of a trigger that starts, fires or ends Airflow says the names twice.
        record = json.dumps([text, names, names], ensure_ascii=False, default=str)
        self.add(RECORD_BYTES + len(record.encode(errors="replace")))

    def add(self, size: int) -> None:
        """Count bytes that have been logged; more than the pipe holds cannot be left to read."""
        self.written += size
        self.taken = max(self.taken, self.written - self._capacity)

    async def during(self, request: Awaitable[T]) -> T:
        """Await a request to Airflow, and count what it takes in that round."""
        before = self.written
        answer = await request
        self.taken = max(self.taken, min(self.taken + ROUND_BYTES, before))
        return answer


def _capacity() -> int:
    """Twice what the pipe holds, for each record may count twice, and some more: what is on its way is not in it."""
    try:
        held = int(Path("/proc/sys/net/core/wmem_default").read_text())
    except (OSError, ValueError):
        held = SOCKET_BYTES
    return held * 5 // 2


pipe = LogPipe(_capacity())
logging.getLogger("airflow_provider_ray").addHandler(pipe)
