"""The client of one cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from operator import attrgetter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from airflow_provider_ray.client.api.access import Access
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
    :param look_up: reads the configuration again when the cluster rejects its credentials; without it, only the files
        that it names are read again.
    :param accepted: the cluster has accepted the credentials before, so a rejection is a passing fault.
    """

    def __init__(
        self,
        config: ClusterConfig,
        look_up: Callable[[], Awaitable[ClusterConfig]] | None = None,
        *,
        accepted: bool = False,
    ) -> None:
        self._access = Access(config, look_up)
        self._dashboard = Http(self._access, attrgetter("dashboard"), accepted=accepted)
        # A client of its own: the cluster's token must never reach an application.
        self._applications = Http(self._access, attrgetter("applications"))
        self.jobs = Jobs(self._dashboard)
        self.cluster = Cluster(self._dashboard)
        self.serve = Serve(self._dashboard, self._applications)
        self.health = NodeHealth(self.cluster)

    @property
    def config(self) -> ClusterConfig:
        """The cluster, with the credentials that the dashboard is shown now."""
        return self._dashboard.config

    @property
    def accepted(self) -> bool:
        """Whether the dashboard is known to have accepted the credentials before.

        Set it as soon as that is certain. Before that, rejected credentials are an error at once, since somebody has
        mistyped them; after that, they are being rotated.
        """
        return self._dashboard.accepted

    @accepted.setter
    def accepted(self, accepted: bool) -> None:
        self._dashboard.accepted = accepted

    async def capacity(self) -> Capacity:
        """What the cluster has and does; see :func:`~airflow_provider_ray.client.api.capacity.read_capacity`."""
        return await read_capacity(self.cluster, self.jobs)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            opening.push_async_callback(self._access.close)
            await opening.enter_async_context(self._dashboard)
            await opening.enter_async_context(self._applications)
            opening.push_async_callback(self.health.close)
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()
