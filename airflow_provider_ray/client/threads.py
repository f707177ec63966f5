"""Blocking calls that an event loop must not wait for, each in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


async def in_own_thread(function: Callable[[], T]) -> T:
    """Run a blocking function in a thread of its own and return its result.

    Unlike the threads of a pool, such as the event loop's own, it can neither wait for others that hang nor take their
    place, and it does not keep the process from ending. Callers have to limit how many of these threads there are.
    """
    return await asyncio.wrap_future(started(function))


def started(function: Callable[[], T]) -> Future[T]:
    """The result of a blocking function, to be awaited in any event loop; it has begun in a thread of its own."""
    result: Future[T] = Future()
    # Set to running, so that a caller that gives up cannot cancel it for the others.
    result.set_running_or_notify_cancel()

    def run() -> None:
        try:
            value = function()
        except BaseException as error:
            result.set_exception(error)
        else:
            result.set_result(value)

    Thread(target=run, name="ray-client", daemon=True).start()
    return result
