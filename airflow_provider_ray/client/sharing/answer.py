"""One answer for all who ask at about the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Nothing is asked for more often.
ROUND_SECONDS = 1.0


class SharedAnswer(Generic[T]):
    """One answer, or the error that came instead, for all who ask while it comes, and for some time after.

    :param ask: gets the answer.
    :param pause: seconds from its end until the next one is asked for, by the seconds that it took.
    """

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, T]], pause: Callable[[float], float]) -> None:
        self._ask = ask
        self._pause = pause
        self._asking: asyncio.Task[T] | None = None
        self._until = 0.0

    async def get(self) -> T:
        """The answer, or the error that came instead."""
        if self._asking is None or (self._asking.done() and monotonic() >= self._until):
            self._asking = asyncio.create_task(self._timed())
            # Whoever asked may give up, and an exception that nobody fetches is reported.
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _timed(self) -> T:
        started = monotonic()
        try:
            return await self._ask()
        finally:
            ended = monotonic()
            self._until = max(started + ROUND_SECONDS, ended + self._pause(ended - started))
