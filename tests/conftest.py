"""Fixtures that every suite shares."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import tests.traced_threads  # noqa: F401
from tests.fake_dashboard import FakeDashboard

# Below the time after which pytest-timeout strikes: its signal leaves the event loop of anyio's runner stuck.
ASYNC_TEST_SECONDS = 100.0


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
