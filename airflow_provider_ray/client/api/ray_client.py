"""The client of one cluster."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from airflow_provider_ray.client.api.capacity import Capacity, read_capacity
from airflow_provider_ray.client.api.cluster import Cluster
from airflow_provider_ray.client.api.http import Http
from airflow_provider_ray.client.api.jobs import Jobs
from airflow_provider_ray.client.api.node_health import NodeHealth
from airflow_provider_ray.client.api.serve import Serve

if TYPE_CHECKING:
    from airflow_provider_ray.client.config import ClusterConfig


class RayClient:
    """All requests to one cluster, grouped by resource.

    Nothing is sent before a method is awaited::

        async with RayClient(ClusterConfig(url="http://127.0.0.1:8265")) as client:
            print(await client.jobs.list())

    :param config: the cluster.
    """

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self._dashboard = Http(config.url, config, token=config.token, headers=config.auth_headers)
        # A client of its own: the cluster's token must never reach an application.
        self._applications = Http(
            "", config, token=config.serve_token, headers=config.serve_auth_headers, token_field="serve_token"
        )
        self.jobs = Jobs(self._dashboard)
        self.cluster = Cluster(self._dashboard)
        self.serve = Serve(self._dashboard, self._applications, config)
        self.health = NodeHealth(self.cluster)

    async def capacity(self) -> Capacity:
        """What the cluster has and does; see :func:`~airflow_provider_ray.client.api.capacity.read_capacity`."""
        return await read_capacity(self.cluster, self.jobs)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            await opening.enter_async_context(self._dashboard)
            await opening.enter_async_context(self._applications)
            opening.push_async_callback(self.health.close)
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()
