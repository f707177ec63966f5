"""How much of what a triggerer's triggers have logged Airflow has read on its way into the task logs.

All triggers of a process log through one socket, and what the other end has not read when a trigger ends never reaches
the task log (Airflow 3.3.2). Linux says how many bytes in the socket are unread, so with a count of the bytes written
to it, everything up to a mark has certainly been read as soon as ``written - unread >= mark``, even while other
triggers keep writing. Bytes that were written past the count only make the answer later, never wrong.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from airflow_provider_ray.client import pacing
from airflow_provider_ray.compat import triggerer


class LogStream:
    """The socket of this process, with a count of what goes through it.

    :param stream: the socket as the file object that loggers write to; its ``write`` is replaced by one that counts.
    """

    def __init__(self, stream: io.FileIO) -> None:
        self.stream = stream
        self.written = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = count()
        self._measuring: asyncio.Task[None] | None = None
        self._write: Callable[[bytes], int | None] = stream.write
        stream.write = self._counted  # type: ignore[method-assign, assignment]

    async def read_up_to(self, mark: int) -> None:
        """Return when Airflow has read everything up to a mark.

        :param mark: a value that ``written`` has had.
        """
        if self._measure() >= mark:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (mark, next(self._number), done))
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.create_task(self._keep_measuring())
        await done

    def _counted(self, data: bytes) -> int | None:
        size = self._write(data)
        self.written += size or 0
        return size

    def _measure(self) -> int:
        """How far Airflow has read at least; not kept, since an old answer would miss what bypassed the count later."""
        # In this order: what is written in between would count as read.
        written = self.written
        return written - triggerer.unread_bytes(self.stream)

    async def _keep_measuring(self) -> None:
        """Measure once for all that wait, which may be a thousand triggers."""
        while self._waiting:
            await asyncio.sleep(pacing.LOG_MEASURE_SECONDS)
            read = self._measure()
            while self._waiting and (self._waiting[0][0] <= read or self._waiting[0][2].done()):
                _, _, done = heappop(self._waiting)
                if not done.done():
                    done.set_result(None)


_current: LogStream | None = None


def log_stream() -> LogStream | None:
    """The log stream of this process, counted from the first call on; None outside of a triggerer."""
    global _current  # noqa: PLW0603
    stream = triggerer.log_stream()
    if stream is None:
        return None
    if _current is None or _current.stream is not stream:
        _current = LogStream(stream)
    return _current


async def has_read(at_most: int, within: float) -> bool:
    """Wait until Airflow has read what this process has logged so far.

    :param at_most: bytes that may be left unread.
    :param within: seconds to wait.
    :returns: whether it has; True outside of a triggerer, where nothing is between a trigger and its log.
    """
    stream = log_stream()
    if stream is None:
        return True
    try:
        async with asyncio.timeout(within):
            await stream.read_up_to(stream.written - at_most)
    except TimeoutError:
        return False
    return True
