"""What is known of one cluster, kept fresh by one request after the other while somebody looks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Generic, TypeVar

from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_ray.client.api.capacity import Usage
from airflow_provider_ray.client.api.models import (
    HEAD_DEAD,
    ClusterVersion,
    JobDetails,
    Node,
    ServeDetails,
    has_living_head,
)
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayError, RayNotFound
from airflow_provider_ray.client.states import is_terminal
from airflow_provider_ray.page.faults import in_words

log = logging.getLogger(__name__)

T = TypeVar("T")

# What takes a cluster long, such as the list of its jobs when it has kept many, may use that share of the time.
ASKING_SHARE = 0.1
# What could not be had is asked for again after that time.
FAULTY_SECONDS = 6.0
# So long the connection of a cluster that answers may have changed unnoticed.
CONNECTION_SECONDS = 30.0
# Jobs that are known by themselves; the oldest are forgotten.
SINGLE_LIMIT = 200
# As many failures in a row mean that the cluster was away, and that nothing known of it holds.
AWAY_AFTER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often a cluster is asked, in seconds.

    :param refresh: from one request to the next.
    :param request: longest wait for an answer, whatever the connection says.
    :param idle: after nobody has looked for so long, the cluster is not asked any more.
    :param longest_pause: between two requests to a cluster that does not answer.
    :param listing: age up to which the list of connections is used again.
    """

    refresh: float = 3.0
    request: float = 5.0
    idle: float = 15.0
    longest_pause: float = 60.0
    listing: float = 5.0


@dataclass(frozen=True, slots=True)
class Lanes:
    """Requests at the same time to all clusters, and of them to those that did not answer last time."""

    usual: asyncio.Semaphore
    slow: asyncio.Semaphore


@dataclass(slots=True)
class Part(Generic[T]):
    """One thing to know of a cluster.

    :param period: seconds for which an answer is fresh.
    :param ask: the request.
    :param is_vital: the cluster is not well when this cannot be had.
    :param value: last answer.
    :param known_at: time of it (monotonic).
    :param fault: why there was none the last time.
    """

    period: float
    ask: Callable[[RayClient], Awaitable[T]]
    is_vital: bool = True
    value: T | None = None
    known_at: float | None = None
    fault: str | None = None
    asked_at: float = -inf
    took: float = 0.0
    wanted_until: float = inf

    def overdue(self, now: float) -> float:
        """Time since it was asked for, in units of the time after which to ask again."""
        period = min(self.period, FAULTY_SECONDS) if self.fault else self.period
        return (now - self.asked_at) / max(period, self.took / ASKING_SHARE)


class ClusterWatch:
    """A cluster that somebody looks at; its parts take turns, so that it gets one request per refresh.

    Everything runs on one event loop; other threads only read.

    :param conn_id: its connection.
    :param lookup: reads a connection; it blocks, and gets a thread.
    :param lanes: places for requests, which all clusters share.
    :param pace: how often to ask.
    """

    def __init__(
        self, conn_id: str, lookup: Callable[[str], Awaitable[ClusterConfig]], lanes: Lanes, pace: Pace
    ) -> None:
        self.conn_id = conn_id
        self.config: ClusterConfig | None = None
        self.wanted_until = monotonic()
        self.version: Part[ClusterVersion] = Part(120, lambda client: client.cluster.version())
        self.usage: Part[Usage | None] = Part(10, _usage)
        self.jobs: Part[Sequence[JobDetails]] = Part(6, lambda client: client.jobs.active())
        self.nodes: Part[Sequence[Node]] = Part(30, lambda client: client.cluster.nodes())
        self.serve: Part[ServeDetails] = Part(30, lambda client: client.serve.details(), is_vital=False)
        self.single: dict[str, Part[JobDetails | None]] = {}
        self._lookup, self._lanes, self._pace = lookup, lanes, pace
        self._client: RayClient | None = None
        self._looked_up_at = -inf
        self._failures = 0
        self._asked_anew_from = 0.0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def fault(self) -> str | None:
        """Why the cluster is not well; None when it is, or nothing is known yet."""
        failing = [part for part in self._regular() if part.is_vital and part.fault]
        if failing:
            return max(failing, key=lambda part: part.asked_at).fault
        return HEAD_DEAD if self.nodes.value is not None and not has_living_head(self.nodes.value) else None

    @property
    def answered_at(self) -> float | None:
        """Time of the last answer of any kind (monotonic)."""
        return max((part.known_at for part in self._regular() if part.known_at is not None), default=None)

    def keep_running(self, until: float, jobs: Collection[str]) -> None:
        """Look at the cluster from now on.

        :param until: when to stop if nobody wants to know any more (monotonic).
        :param jobs: submission_ids of jobs that are to be known even when they have ended.
        """
        self.wanted_until = until
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        for submission_id in jobs:
            if submission_id not in self.single:
                self.single[submission_id] = Part(30, partial(_job, submission_id=submission_id), is_vital=False)
                self._hurry()
            self.single[submission_id].wanted_until = until
        for submission_id in list(self.single)[:-SINGLE_LIMIT]:
            del self.single[submission_id]

    def ask_for_jobs(self) -> None:
        """Have the jobs asked for next, since one was told to stop."""
        self.jobs.asked_at = -inf
        self._hurry()

    async def end(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """Look at the cluster until nobody wants to know."""
        self._asked_anew_from = monotonic()
        try:
            while monotonic() < self.wanted_until:
                now = monotonic()
                await self._ask(max(self._open(), key=lambda part: part.overdue(now)))
                await self._rest()
        finally:
            self.single.clear()
            self._looked_up_at = -inf
            await self._close()

    def _hurry(self) -> None:
        if not self._failures:
            self._wake.set()

    def _regular(self) -> tuple[Part[Any], ...]:
        return (self.version, self.usage, self.jobs, self.nodes, self.serve)

    def _open(self) -> Iterator[Part[Any]]:
        """What may have news: an active job is in the list of jobs, and one that has ended stays so."""
        yield from self._regular()
        active = {job.submission_id for job in self.jobs.value or ()}
        for submission_id, part in list(self.single.items()):
            has_ended = part.value is not None and is_terminal(part.value.status)
            if part.wanted_until > monotonic() and submission_id not in active and not has_ended:
                yield part

    async def _ask(self, part: Part[Any]) -> None:
        async with self._lanes.slow if self._failures else self._lanes.usual:
            part.asked_at, had_fault = monotonic(), part.fault is not None
            try:
                async with asyncio.timeout(self._pace.request):
                    part.value = await part.ask(await self._opened())
            except Exception as error:
                self._note_failure(part, error)
            else:
                self._note_answer(part)
            # One that fails for once is asked again as soon as ever.
            if had_fault or part.fault is None:
                part.took = monotonic() - part.asked_at

    def _note_answer(self, part: Part[Any]) -> None:
        part.known_at, part.fault = monotonic(), None
        if self._failures >= AWAY_AFTER:
            self._asked_anew_from = part.asked_at
        self._failures = 0

    def _note_failure(self, part: Part[Any], error: Exception) -> None:
        was, part.fault = part.fault, in_words(error)
        self._failures += 1
        # Whoever mends the connection need not wait.
        self._looked_up_at = -inf
        if not isinstance(error, RayError | TimeoutError | AirflowNotFoundException) and part.fault != was:
            log.error("The cluster of connection %r cannot be looked at", self.conn_id, exc_info=error)

    async def _opened(self) -> RayClient:
        if self._client is None or monotonic() - self._looked_up_at > CONNECTION_SECONDS:
            self._client = await self._renewed()
        return self._client

    async def _renewed(self) -> RayClient:
        """The client of the connection as it is now."""
        config = await self._lookup(self.conn_id)
        self._looked_up_at = monotonic()
        if self._client is not None and config == self.config:
            return self._client
        await self._close()
        self.config = config
        return await RayClient(bounded(config, self._pace)).__aenter__()

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)

    async def _rest(self) -> None:
        """Pause, unless the cluster answers and there are parts that it has not been asked for yet."""
        if not self._failures and any(part.asked_at < self._asked_anew_from for part in self._open()):
            return
        pause = min(self._pace.refresh * 2 ** min(self._failures, 10), self._pace.longest_pause)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause * random.uniform(0.9, 1.1)):  # noqa: S311
                await self._wake.wait()
        self._wake.clear()


def bounded(config: ClusterConfig, pace: Pace) -> ClusterConfig:
    """The same cluster, with waits that are no longer than ours."""
    return replace(
        config,
        connect_timeout=min(config.connect_timeout, pace.request),
        read_timeout=min(config.read_timeout, pace.request),
    )


async def _usage(client: RayClient) -> Usage | None:
    return Usage.from_text(await client.cluster.status())


async def _job(client: RayClient, *, submission_id: str) -> JobDetails | None:
    try:
        return await client.jobs.get(submission_id)
    except RayNotFound:
        return None
