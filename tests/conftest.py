"""Fixtures that every suite shares."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ray.local import LocalCluster, LocalOptions, local_clusters
from tests.fake_dashboard import FakeDashboard

TOKEN = "test-token-0123456789abcdef"
RAY249 = Path(__file__).parents[1] / ".venv-ray249/bin/ray"

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


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[LocalCluster]:
    """A real head of the Ray that is installed here, started at first use and shared by all tests."""
    with local_clusters(1) as (cluster,):
        yield cluster


@pytest.fixture(scope="session")
def token_cluster() -> Iterator[LocalCluster]:
    """The same with token authentication."""
    with local_clusters(1, LocalOptions(tokens=[TOKEN])) as (cluster,):
        yield cluster


@pytest.fixture(scope="session")
def ray249_cluster() -> Iterator[LocalCluster]:
    """A real head of Ray 2.49.2, from the virtual environment of ``make setup-ray249``."""
    with local_clusters(1, LocalOptions(ray_executable=str(RAY249))) as (cluster,):
        yield cluster
