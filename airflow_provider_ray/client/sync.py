"""The only bridge from blocking code to async code."""

from __future__ import annotations

import asyncio
import contextlib
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# Time for cancelled work to close its connections; a thread that hangs on is left to die with the process.
CANCEL_SECONDS = 5.0
# Closing a loop waits for the threads of its pool, which nothing can cancel; one that hangs is left as well.
CLOSE_SECONDS = 0.5


def run_sync(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run an async function to its end from blocking code, on an event loop of its own in another thread.

    A loop in another thread, unlike ``asyncio.run`` in this one, leaves the calling thread interruptible: a signal
    handler (``on_kill``) can make requests of its own, and an exception that a signal raises (``execution_timeout``)
    cancels the work instead of waiting for it, at whatever line it strikes.

    :raises RuntimeError: when called on an event loop, which it would block.
    """
    if _is_on_loop():
        raise RuntimeError("run_sync() blocks: on an event loop, await the async function instead.")
    work = _Work(function)
    try:
        # Not threading.Thread: an exception that strikes in its locks would be lost in a RuntimeError of theirs.
        start_new_thread(work.run, ())
        work.ended.acquire()
        work.closed.acquire(timeout=CLOSE_SECONDS)
    except BaseException:
        work.cancel()
        # It may have ended, and the lock be taken already, when the exception struck.
        if not work.is_over:
            work.ended.acquire(timeout=CANCEL_SECONDS)
        raise
    if work.error is not None:
        raise work.error
    result: T = work.result
    return result


class _Work:
    """One run of an async function; it can be cancelled from another thread before, while and after it runs."""

    def __init__(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.ended, self.closed = allocate_lock(), allocate_lock()
        self.ended.acquire()
        self.closed.acquire()
        self.is_over = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._function = function
        self._cancelled = False
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self.error = error
        finally:
            self._end()
            self.closed.release()

    def cancel(self) -> None:
        # Either this sees the task, or the task sees the flag.
        self._cancelled = True
        if self._running is not None:
            loop, task = self._running
            # The loop is closed when the work has ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)

    async def _main(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._running = asyncio.get_running_loop(), task
        try:
            if self._cancelled:
                raise asyncio.CancelledError
            self.result = await self._function()
        except BaseException as error:
            self.error = error
        finally:
            self._end()

    def _end(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.ended.release()


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
