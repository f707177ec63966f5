"""Fixtures that every suite shares."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

import tests.traced_threads  # noqa: F401
from tests.fake_dashboard import FakeDashboard

# Below the time after which pytest-timeout strikes: its signal leaves the event loop of anyio's runner stuck.
ASYNC_TEST_SECONDS = 100.0


# Tests that one process has to run, by folder: those that start heads or look for free ports of the host, where no
# other head may start meanwhile, and those that share an API server.
TOGETHER = {
    "tests/contract/": "heads",
    "tests/ray/": "heads",
    "tests/unit/local/": "heads",
    "tests/browser/": "browser",
}


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives all other tests to the processes one by one; most of them wait, and some files have many.

    xdist's own way to keep tests together, ``--dist loadgroup``, does nothing with pytest 9.2 (pytest-xdist #1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((group for folder, group in TOGETHER.items() if nodeid.startswith(folder)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = within(ASYNC_TEST_SECONDS, pyfuncitem.obj)


def within(seconds: float, test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def limited(**arguments: Any) -> None:
        async with asyncio.timeout(seconds):
            await test(**arguments)

    return limited


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def fake() -> Iterator[FakeDashboard]:
    with FakeDashboard() as dashboard:
        yield dashboard
