from __future__ import annotations

import asyncio
import threading

import pytest

from airflow_provider_ray.client.threads import in_own_thread

pytestmark = pytest.mark.anyio


async def test_results_and_errors_come_back() -> None:
    assert await in_own_thread(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await in_own_thread(lambda: 1 / 0)


async def test_a_call_that_hangs_is_left_alone_and_delays_nobody() -> None:
    released = threading.Event()
    hanging = [asyncio.create_task(in_own_thread(lambda: released.wait(60))) for _ in range(50)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(in_own_thread(threading.current_thread), 10) is not threading.current_thread()
    for task in hanging:
        task.cancel()
    await asyncio.wait(hanging, timeout=10)
    assert all(task.cancelled() for task in hanging)
    released.set()
