from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from textwrap import dedent

import pytest

from airflow_provider_ray.client.sync import run_sync


def test_the_result_and_the_error_come_back() -> None:
    async def seven() -> int:
        await asyncio.sleep(0)
        return 7

    async def broken() -> None:
        raise LookupError("as it was")

    assert run_sync(seven) == 7
    with pytest.raises(LookupError, match="as it was"):
        run_sync(broken)


@pytest.mark.anyio
async def test_on_an_event_loop_it_refuses() -> None:
    with pytest.raises(RuntimeError, match="blocks"):
        run_sync(lambda: asyncio.sleep(0))


def test_a_host_name_that_is_looked_up_for_ever_holds_nobody() -> None:
    found = threading.Event()

    async def look_up() -> None:
        # What asyncio does with a host name: a thread, which no time limit ends.
        async with asyncio.timeout(0.2):
            await asyncio.to_thread(found.wait, 60)

    started = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            run_sync(look_up)
        assert time.monotonic() - started < 10
    finally:
        found.set()


def python(program: str) -> tuple[str, float]:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout, time.monotonic() - started


def test_a_timer_cancels_the_work() -> None:
    said, seconds = python("""
        import asyncio, signal
        from airflow_provider_ray.client.sync import run_sync

        async def work():
            try:
                await asyncio.sleep(60)
            finally:
                print("cancelled")

        class TimeIsUp(BaseException): pass

        def strike(*_): raise TimeIsUp

        signal.signal(signal.SIGALRM, strike)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        try:
            run_sync(work)
        except TimeIsUp:
            print("time is up")
    """)
    assert said.split("\n")[:2] == ["cancelled", "time is up"]
    assert seconds < 20


def test_a_signal_handler_can_do_work_of_its_own() -> None:
    said, seconds = python("""
        import asyncio, os, signal, sys
        from airflow_provider_ray.client.sync import run_sync

        async def work():
            asyncio.get_running_loop().call_later(0.3, os.kill, os.getpid(), signal.SIGTERM)
            await asyncio.sleep(60)

        async def stop():
            await asyncio.sleep(0.1)
            print("stopped the job", flush=True)

        def on_kill(*_):
            run_sync(stop)
            sys.exit(0)

        signal.signal(signal.SIGTERM, on_kill)
        run_sync(work)
    """)
    assert said == "stopped the job\n"
    assert seconds < 20


def test_a_timer_may_strike_at_any_line() -> None:
    """Also while the thread or its loop is starting or ending, where waiting for them would be for ever."""
    said, _ = python("""
        import asyncio, signal, time
        from airflow_provider_ray.client.sync import run_sync

        class TimeIsUp(BaseException): pass

        def strike(*_): raise TimeIsUp

        async def work():
            await asyncio.sleep(0.001)

        signal.signal(signal.SIGALRM, strike)
        struck = slowest = 0
        for microseconds in range(20, 6000, 20):
            started = time.monotonic()
            try:
                signal.setitimer(signal.ITIMER_REAL, microseconds / 1e6)
                run_sync(work)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except TimeIsUp:
                struck += 1
            slowest = max(slowest, time.monotonic() - started)
        print(struck, slowest)
    """)
    struck, slowest = said.split()
    assert int(struck) > 50
    assert float(slowest) < 4
