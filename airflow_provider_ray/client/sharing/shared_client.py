"""One client per cluster for everyone in an event loop, so that many waits cost a cluster no more than one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self
from weakref import WeakKeyDictionary

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.capacity import Capacity
from airflow_provider_ray.client.api.cluster import Cluster
from airflow_provider_ray.client.api.models import ClusterVersion
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.sharing.answer import SharedAnswer
from airflow_provider_ray.client.sharing.shared_jobs import SharedJobs
from airflow_provider_ray.client.sharing.shared_serve import SharedServe

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.http import Http
    from airflow_provider_ray.client.config import ClusterConfig


class SharedCluster(Cluster):
    """Requests about a cluster; versions requested at about the same time come from the same answer."""

    def __init__(self, http: Http) -> None:
        super().__init__(http)
        # The longest pause is as short as the period, because a sign of life must not be old.
        self._version = SharedAnswer[ClusterVersion](
            super().version, period=pacing.VERSION_SECONDS, longest_pause=pacing.VERSION_SECONDS
        )

    async def version(self) -> ClusterVersion:
        """Version of Ray on the head; all who ask at about the same time get the same answer."""
        return await self._version.get()

    async def close(self) -> None:
        """Stop asking."""
        await self._version.close()


class SharedClient(RayClient):
    """A client with many users; the first opens it, the last closes it."""

    cluster: SharedCluster
    jobs: SharedJobs
    serve: SharedServe

    def __init__(
        self,
        config: ClusterConfig,
        look_up: Callable[[], Awaitable[ClusterConfig]] | None = None,
        conn_id: str | None = None,
    ) -> None:
        super().__init__(config, look_up)
        self._conn_id = conn_id
        self.jobs = SharedJobs(self._dashboard)
        self.cluster = SharedCluster(self._dashboard)
        self.serve = SharedServe(self._dashboard, self._applications)
        self._capacity = SharedAnswer[Capacity](
            super().capacity, period=pacing.CAPACITY_SECONDS, longest_pause=pacing.LONGEST_PAUSE_SECONDS
        )
        self.users = 0
        self._opening: asyncio.Task[Self] | None = None

    def is_for(self, conn_id: str | None, config: ClusterConfig) -> bool:
        """Whether it uses what this connection holds, or has looked that up and gone back to what worked before."""
        return self._conn_id == conn_id and config in (self.config, self._access.held.config)

    async def capacity(self) -> Capacity:
        """What the cluster has and does; all who ask at about the same time get the same answer."""
        return await self._capacity.get()

    def opened(self) -> asyncio.Task[Self]:
        """Begin to open the client, or continue."""
        if self._opening is None:
            self._opening = asyncio.create_task(self.__aenter__())
        return self._opening

    async def close(self) -> None:
        """Close what has been opened."""
        await self._capacity.close()
        await self.cluster.close()
        await self.jobs.close()
        await self.serve.close()
        if self._opening is not None:
            (opened,) = await asyncio.gather(self._opening, return_exceptions=True)
            if opened is self:
                await self.__aexit__(None, None, None)


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, list[SharedClient]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_client(
    config: ClusterConfig,
    look_up: Callable[[], Awaitable[ClusterConfig]] | None = None,
    *,
    conn_id: str | None = None,
    accepted: bool = False,
) -> AsyncIterator[RayClient]:
    """The client that everyone in this event loop uses for a connection with this configuration.

    When the cluster rejects its credentials, all who use it get new ones. Another connection to the same cluster may
    get others, or none.

    :param config: the cluster.
    :param look_up: see :class:`RayClient`; that of the first user counts.
    :param conn_id: the connection that ``look_up`` reads.
    :param accepted: likewise; of one user, it holds for all.
    """
    clients = _clients.setdefault(asyncio.get_running_loop(), [])
    client = next((each for each in clients if each.is_for(conn_id, config)), None)
    if client is None:
        client = SharedClient(config, look_up, conn_id)
        clients.append(client)
    client.users += 1
    client.accepted = client.accepted or accepted
    try:
        # Giving up must not break off the opening for the others.
        await asyncio.shield(client.opened())
        yield client
    finally:
        client.users -= 1
        if not client.users:
            clients.remove(client)
            # Runs to its end, however often the last user is cancelled.
            await asyncio.shield(asyncio.create_task(client.close()))
