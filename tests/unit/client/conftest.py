from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from tests.fake_dashboard import FakeDashboard


@pytest.fixture
async def client(fake: FakeDashboard) -> AsyncIterator[RayClient]:
    async with RayClient(ClusterConfig(url=fake.url, connect_timeout=2, read_timeout=2)) as opened:
        yield opened
