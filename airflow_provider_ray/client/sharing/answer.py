"""One answer of a cluster for all callers: those that wait for it, and those that only show it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic
from typing import Generic, TypeVar

from airflow_provider_ray.client import pacing

T = TypeVar("T")


class SharedAnswer(Generic[T]):
    """The last answer to a question, or the error that came instead, and when to ask again.

    Callers that need the answer :meth:`get` it: they wait for the same request, and if one gives up, the others still
    get the answer. Callers that show it read it without waiting, while another keeps it fresh with :meth:`refresh`.
    Everything runs on one event loop; other threads only read.

    :param ask: gets the answer.
    :param period: seconds from one request to the next. A slow answer is asked for less often, so that it keeps the
        cluster busy for a limited share of the time (``pacing.SLOW_ANSWER_SHARE``).
    :param longest_pause: longest pause after a slow answer, in seconds; default: any.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]], *, period: float, longest_pause: float = inf) -> None:
        self.value: T | None = None
        self.known_at: float | None = None
        self.error: Exception | None = None
        self.failures = 0
        self.asked_at = -inf
        self.took = 0.0
        self._ask = ask
        self._period = period
        self._longest_pause = longest_pause
        self._asking: asyncio.Task[T] | None = None

    @property
    def current(self) -> T | None:
        """The last answer, unless it no longer holds: asking again has failed more than once."""
        return self.value if self.failures < pacing.FAILURES_TO_DISTRUST else None

    def fresh(self, seconds: float) -> T | None:
        """The last answer, unless it is older than that or asking again has failed."""
        is_fresh = self.error is None and self.known_at is not None and monotonic() - self.known_at < seconds
        return self.value if is_fresh else None

    @property
    def interval(self) -> float:
        """Seconds from the last request to the next."""
        if self.failures == 1:
            return min(self._period, pacing.RETRY_SECONDS)
        return max(self._period, self.took + min(self.took / pacing.SLOW_ANSWER_SHARE, self._longest_pause))

    def overdue(self, now: float) -> float:
        """How long ago it was asked for, in intervals: from 1 on it is due."""
        return (now - self.asked_at) / self.interval

    def expire(self) -> None:
        """Make it due."""
        self.asked_at = -inf

    async def get(self, within: float | None = None) -> T:
        """The answer, or the error that came instead; asks for it when it is due.

        :param within: ask unless the last answer came within so many seconds, due or not; one on its way will do.
        :raises Exception: what the request raised, for all who share it.
        """
        is_old = self.overdue(monotonic()) >= 1 if within is None else self.fresh(within) is None
        if self._asking is None or (self._asking.done() and is_old):
            self._asking = asyncio.create_task(self.refresh())
            # Everyone who asked may give up, and asyncio reports an exception that nobody fetches.
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._asking)

    async def refresh(self) -> T:
        """Ask now.

        :raises Exception: what the request raised.
        """
        self.asked_at = started = monotonic()
        try:
            value = await self._ask()
        except Exception as error:
            self.error = error
            self.failures += 1
            raise
        else:
            self.value, self.error, self.failures, self.known_at = value, None, 0, monotonic()
            return value
        finally:
            self.took = monotonic() - started

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
