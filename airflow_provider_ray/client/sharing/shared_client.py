"""One client per cluster for everybody in an event loop, so that many waits cost a cluster no more than one.

However many jobs are waited for, a cluster is asked for their states in rounds, one a second at most: whoever wants to
know a state gets it from the next round. Whoever wants to know what is free, or whether Ray still answers, shares an
answer as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple
from math import inf
from time import monotonic
from typing import Self, TypeAlias
from weakref import WeakKeyDictionary

from airflow_provider_ray.client.api.capacity import Capacity
from airflow_provider_ray.client.api.cluster import Cluster
from airflow_provider_ray.client.api.http import Http
from airflow_provider_ray.client.api.jobs import Jobs
from airflow_provider_ray.client.api.models import ClusterVersion, JobDetails
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayError
from airflow_provider_ray.client.sharing.answer import ROUND_SECONDS, SharedAnswer

log = logging.getLogger(__name__)

# Whoever comes a little later shares the round, and whoever comes a little too late its answer.
GATHER_SECONDS = 0.05
FRESH_SECONDS = 0.5
# A list reads every record that the cluster has kept (190 ms for 1,000, Ray 2.60); it may use that share of the time.
LISTING_SHARE = 0.1
# ... but a deadline or a stop that waits for its round must not wait long.
LONGEST_PAUSE_SECONDS = 5.0
LISTING_FORGOTTEN_SECONDS = 60.0
# Fewer are cheaper to ask for one by one, whatever the list costs.
LIST_FROM = 4
# Ray itself looks every five seconds at what is used.
CAPACITY_SECONDS = 2.0
# Waking many waits at once would hold up everybody else in the loop.
WOKEN_AT_ONCE = 50


_Wanted: TypeAlias = dict[str, list[asyncio.Future[JobDetails]]]


class SharedJobs(Jobs):
    """Jobs of one cluster; states that are asked for at about the same time come from the same answer."""

    def __init__(self, http: Http) -> None:
        super().__init__(http)
        self._wanted: _Wanted = {}
        self._rounds: asyncio.Task[None] | None = None
        self._next_round = 0.0
        self._get_seconds = 0.005
        self._got_at = 0.0
        self._list_seconds = 0.0
        self._listed_at = 0.0
        self._listed: Mapping[str, JobDetails] = {}
        self._whole = SharedAnswer[Sequence[JobDetails]](super().list, _pause_after)

    async def get(self, submission_id: str) -> JobDetails:
        """Details of one job, from the next round or the one that has just been."""
        if submission_id in self._listed and monotonic() - self._listed_at < FRESH_SECONDS:
            return self._listed[submission_id]
        # A future of its own for everybody: one who gives up must not take the answer away from another.
        answer: asyncio.Future[JobDetails] = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(submission_id, []).append(answer)
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._run_rounds())
        return await answer

    async def list(self) -> Sequence[JobDetails]:
        """Jobs of the cluster; whoever asks at about the same time gets the same answer."""
        return await self._whole.get()

    async def close(self) -> None:
        """End the rounds."""
        await self._whole.close()
        if self._rounds is not None:
            self._rounds.cancel()
            await asyncio.gather(self._rounds, return_exceptions=True)

    async def _run_rounds(self) -> None:
        while self._wanted:
            await asyncio.sleep(max(self._next_round - monotonic(), GATHER_SECONDS))
            await self._round()

    async def _round(self) -> None:
        wanted = {key: futures for key, futures in self._wanted.items() if any(_unanswered(futures))}
        self._wanted = {}
        self._next_round = monotonic() + ROUND_SECONDS
        try:
            await self._answer(wanted)
        except Exception as error:
            for futures in wanted.values():
                _refuse(futures, error)

    async def _answer(self, wanted: _Wanted) -> None:
        listed = await self._list(wanted) if self._listing_pays(len(wanted)) else {}
        for number, (submission_id, futures) in enumerate(wanted.items(), start=1):
            if not any(_unanswered(futures)):
                continue
            if submission_id in listed:
                job = listed[submission_id]
            else:
                # Only a 404 of its own says that a job is not there.
                try:
                    job = await self._get(submission_id)
                except RayError as error:
                    _refuse(futures, error)
                    if error.transient:
                        raise
                    continue
            for future in _unanswered(futures):
                future.set_result(job)
            if number % WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _listing_pays(self, number: int) -> bool:
        """Whether lists keep the cluster busy for a smaller share of the time than a request for each job would.

        All who ask now are taken to ask every second, as they do for a minute: for those who have waited longer a list
        may be read where single requests would be cheaper, but no more often than ``_pause_after`` allows.
        """
        if monotonic() - self._listed_at > LISTING_FORGOTTEN_SECONDS:
            self._list_seconds = 0.0
        if number < LIST_FROM or self._list_seconds == inf:
            return False
        listing = self._list_seconds / max(self._list_seconds + _pause_after(self._list_seconds), ROUND_SECONDS)
        return listing <= number * self._get_seconds / ROUND_SECONDS

    async def _get(self, submission_id: str) -> JobDetails:
        started = monotonic()
        try:
            job = await super().get(submission_id)
        except RayError as error:
            if not error.transient:
                self._got_at = monotonic()
            elif self._list_seconds == inf and self._got_at < self._listed_at:
                # Nothing has been answered since the list failed, so that was not to blame.
                self._list_seconds = 0.0
            raise
        self._got_at = monotonic()
        self._get_seconds += 0.2 * (self._got_at - started - self._get_seconds)
        return job

    async def _list(self, wanted: Container[str]) -> Mapping[str, JobDetails]:
        started = monotonic()
        try:
            self._listed, fault = await self.pick(wanted), None
        except RayError as error:
            # Single requests may work where a list does not; if they do not either, they say why.
            log.debug("The jobs cannot be listed now: %s", error)
            self._listed, fault = {}, error
        self._listed_at = monotonic()
        took = self._listed_at - started
        # One that was refused, or took long to fail, is not tried again for a while.
        self._list_seconds = inf if fault and not (fault.transient and took < ROUND_SECONDS) else took
        self._next_round = max(self._next_round, self._listed_at + _pause_after(took))
        return self._listed


def _pause_after(listing_seconds: float) -> float:
    return min(listing_seconds / LISTING_SHARE, LONGEST_PAUSE_SECONDS)


def _refuse(futures: Iterable[asyncio.Future[JobDetails]], error: Exception) -> None:
    for future in _unanswered(futures):
        future.set_exception(error)
        # Whoever asked may give up before it is woken, and an exception that nobody fetches is reported.
        future.exception()


def _unanswered(futures: Iterable[asyncio.Future[JobDetails]]) -> Iterator[asyncio.Future[JobDetails]]:
    """Without those of whoever has given up."""
    return (future for future in futures if not future.done())


class SharedCluster(Cluster):
    """What can be asked of a cluster; versions that are asked for at about the same time come from the same answer."""

    def __init__(self, http: Http) -> None:
        super().__init__(http)
        # A sign of life, for which all ask at once when the cluster has forgotten their jobs.
        self._version = SharedAnswer[ClusterVersion](super().version, lambda _: ROUND_SECONDS)

    async def version(self) -> ClusterVersion:
        """Version of Ray on the head; whoever asks at about the same time gets the same answer."""
        return await self._version.get()

    async def close(self) -> None:
        """Stop asking."""
        await self._version.close()


class SharedClient(RayClient):
    """A client that many use at the same time; the first opens it, the last closes it."""

    cluster: SharedCluster
    jobs: SharedJobs

    def __init__(self, config: ClusterConfig) -> None:
        super().__init__(config)
        self.jobs = SharedJobs(self._dashboard)
        self.cluster = SharedCluster(self._dashboard)
        self._capacity = SharedAnswer[Capacity](
            super().capacity, lambda took: max(CAPACITY_SECONDS, _pause_after(took))
        )
        self.users = 0
        self._opening: asyncio.Task[Self] | None = None

    async def capacity(self) -> Capacity:
        """What the cluster has and does; whoever asks at about the same time gets the same answer."""
        return await self._capacity.get()

    def opened(self) -> asyncio.Task[Self]:
        """Begin to open the client, or go on with it."""
        if self._opening is None:
            self._opening = asyncio.create_task(self.__aenter__())
        return self._opening

    async def close(self) -> None:
        """Close what has been opened."""
        await self._capacity.close()
        await self.cluster.close()
        await self.jobs.close()
        if self._opening is not None:
            (opened,) = await asyncio.gather(self._opening, return_exceptions=True)
            if opened is self:
                await self.__aexit__(None, None, None)


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedClient]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_client(config: ClusterConfig) -> AsyncIterator[RayClient]:
    """The client that everybody in this event loop uses for a cluster with this configuration.

    :param config: the cluster.
    """
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    # In memory only: it holds the credentials.
    key = repr(astuple(config))
    if key not in clients:
        clients[key] = SharedClient(config)
    client = clients[key]
    client.users += 1
    try:
        # One who gives up must not break off the opening for another.
        await asyncio.shield(client.opened())
        yield client
    finally:
        client.users -= 1
        if not client.users:
            del clients[key]
            # To its end, however often the one who leaves is cancelled.
            await asyncio.shield(asyncio.create_task(client.close()))
