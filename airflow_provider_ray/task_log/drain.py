"""How much of what this package logs in a triggerer Airflow has taken on its way into the task logs."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from structlog.contextvars import get_contextvars

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

# What Airflow reads in a round.
ROUND_BYTES = 4096
# What Airflow adds to a line beside the names of the task.
RECORD_BYTES = 250

T = TypeVar("T")


class LogPipe(logging.Handler):
    """Counts the bytes that this package has logged in this process (``written``), and those that Airflow has taken.

    The process that writes the triggers' logs reads 4096 bytes of what all of them have logged in the round in which it
    answers one request, and what it has not read when a trigger ends is not in the task log (Airflow 3.3.2,
    ``TriggerRunnerSupervisor``). What others log is not counted. In processes without triggers the count means nothing.

    :param capacity: more than the pipe between the two processes holds, as it is counted here, in bytes.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.written = self.taken = 0
        self._capacity = capacity
        # What one has asked for, the others need not ask for.
        self._asking = asyncio.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record."""
        try:
            # To format it leaves its mark on a record.
            record = copy.copy(record)
            self.count(self.format(record))
            # Airflow's JSON has more around each of a traceback's lines.
            self.add(len(record.exc_text or ""))
        except Exception:
            self.handleError(record)

    def count(self, text: str = "") -> None:
        """Count a record of the trigger that runs now: as many bytes as it has, or up to twice as many.

        Rarely wrong: Airflow shortens or lengthens what looks like a token, and leaves out what is below its level.

        :param text: what it says beside the names of the task.
        """
        names = str(get_contextvars())
        # Of a trigger that starts, fires or ends Airflow says the names twice.
        record = json.dumps([text, names, names], ensure_ascii=False)
        self.add(RECORD_BYTES + len(record.encode(errors="replace")))

    @contextmanager
    def life(self) -> Iterator[None]:
        """Count what Airflow says of a trigger that runs inside: that it starts, is cancelled, and ends.

        Airflow says what event it fires before it goes on with the trigger, which counts that itself.
        """
        self.count()
        try:
            yield
        except asyncio.CancelledError:
            self.count()
            raise
        finally:
            self.count()

    def add(self, size: int) -> None:
        """Count bytes that have been logged; more than the pipe holds cannot be left to read."""
        self.written += size
        self.taken = max(self.taken, self.written - self._capacity)

    async def during(self, request: Awaitable[T]) -> T:
        """The answer to a request to Airflow; what Airflow takes in that round is counted."""
        before = self.written
        answer = await request
        self.taken = max(self.taken, min(self.taken + ROUND_BYTES, before))
        return answer

    async def drain(self, ask: Callable[[], Awaitable[object]], at_most: int) -> None:
        """Have Airflow take what has been logged up to now.

        :param ask: sends any request to Airflow and awaits its answer.
        :param at_most: bytes that may be left.
        """
        enough = self.written - at_most
        if self.taken < enough:
            async with self._asking:
                while self.taken < enough:
                    await self.during(ask())


def _capacity() -> int:
    """Twice what the pipe holds, for each record may count twice; it holds some more than the size of its buffer."""
    with socket.socket(socket.AF_UNIX) as end:
        return end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) * 5 // 2


pipe = LogPipe(_capacity())
# What the client has to say; a trigger's own logger passes no handler.
logging.getLogger("airflow_provider_ray").addHandler(pipe)


@dataclass(frozen=True, slots=True)
class CountedLogger:
    """Counts what a trigger writes to the task log.

    The standard library's loggers would not do for the driver's lines: ``[logging] namespace_levels`` does not concern
    them, and Airflow's own records can cut a long one in two (Airflow 3.3.2; structlog's wait for each other).

    :param logger: the trigger's, which is structlog's.
    """

    logger: Logger

    def log(self, level: int, event: str, /, *args: object) -> None:
        """Log a line."""
        self.logger.log(level, event, *args)
        if self.logger.isEnabledFor(level):
            pipe.count(event % args if args else event)

    def info(self, event: str, /, *args: object) -> None:
        """Log a line at INFO."""
        self.log(logging.INFO, event, *args)

    def error(self, event: str, /, *args: object) -> None:
        """Log a line at ERROR."""
        self.log(logging.ERROR, event, *args)
