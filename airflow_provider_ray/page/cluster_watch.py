"""What is known of one cluster, kept fresh by one request after another while a browser shows it."""

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
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.capacity import Usage
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.clusters.health import why_unhealthy
from airflow_provider_ray.client.errors import RayError, RayNotFound
from airflow_provider_ray.client.sharing.answer import SharedAnswer
from airflow_provider_ray.client.states import is_terminal

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.models import ClusterVersion, JobDetails, Node, ServeDetails
    from airflow_provider_ray.client.config import ClusterConfig

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lanes:
    """How many requests run at the same time to all clusters, and to those that did not answer last time."""

    usual: asyncio.Semaphore
    slow: asyncio.Semaphore


class ClusterWatch:
    """A cluster that a browser shows; its answers take turns, so that it gets one request per refresh.

    A cluster that does not answer is asked only for its version, less and less often, until it does. Everything runs on
    one event loop; other threads only read.

    :param conn_id: its connection.
    :param lookup: reads a connection; it blocks, and gets a thread.
    :param lanes: places for requests, shared by all clusters.
    """

    def __init__(self, conn_id: str, lookup: Callable[[str], Awaitable[ClusterConfig]], lanes: Lanes) -> None:
        self.conn_id = conn_id
        self.config: ClusterConfig | None = None
        self.wanted_until = monotonic()
        self.version: SharedAnswer[ClusterVersion] = self._answer(_version, pacing.PAGE_VERSION_SECONDS)
        self.nodes: SharedAnswer[Sequence[Node]] = self._answer(_nodes, pacing.PAGE_NODES_SECONDS)
        self.usage: SharedAnswer[Usage | None] = self._answer(_usage, pacing.PAGE_USAGE_SECONDS)
        self.jobs: SharedAnswer[Sequence[JobDetails]] = self._answer(_jobs, pacing.PAGE_JOBS_SECONDS)
        self.serve: SharedAnswer[ServeDetails] = self._answer(_serve, pacing.PAGE_SERVE_SECONDS)
        self.single: dict[str, SharedAnswer[JobDetails | None]] = {}
        self._single_until: dict[str, float] = {}
        self._lookup, self._lanes = lookup, lanes
        self._client: RayClient | None = None
        self._looked_up_at = -inf
        self._failures = 0
        self._news_from = 0.0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def fault(self) -> Exception | None:
        """Why the cluster is unhealthy; None when it is healthy, or not yet known to be unhealthy."""
        return why_unhealthy(self.version.error or self.version.value, self.nodes.error or self.nodes.value)

    @property
    def answered_at(self) -> float | None:
        """Time of the last answer of any kind (monotonic)."""
        return max((each.known_at for each in self._regular() if each.known_at is not None), default=None)

    def keep_running(self, until: float, jobs: Collection[str]) -> None:
        """Keep asking the cluster from now on.

        :param until: when to stop unless this is called again (monotonic).
        :param jobs: submission_ids of jobs to be known even when they have ended.
        """
        self.wanted_until = until
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        for submission_id in jobs:
            if submission_id not in self.single:
                ask = partial(_job, submission_id=submission_id)
                self.single[submission_id] = self._answer(ask, pacing.PAGE_JOB_SECONDS)
                self._hurry()
            self._single_until[submission_id] = until
        for submission_id in list(self.single)[: -pacing.PAGE_JOBS_KEPT]:
            del self.single[submission_id], self._single_until[submission_id]

    def ask_for_jobs(self) -> None:
        """Ask for the jobs next, since one is being stopped."""
        self.jobs.expire()
        self._hurry()

    async def end(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """Ask the cluster until no browser shows it any longer."""
        self._news_from = monotonic()
        try:
            while monotonic() < self.wanted_until:
                await self._refresh(self._next())
                await self._rest()
        finally:
            self.single.clear()
            self._single_until.clear()
            self._looked_up_at = -inf
            await self._close()

    def _hurry(self) -> None:
        if not self._failures:
            self._wake.set()

    def _regular(self) -> tuple[SharedAnswer[Any], ...]:
        return (self.version, self.nodes, self.usage, self.jobs, self.serve)

    def _open(self) -> Iterator[SharedAnswer[Any]]:
        """What may have news: an active job is in the list of jobs, and a job that has ended does not change."""
        yield from self._regular()
        active = {job.submission_id for job in self.jobs.current or ()}
        for submission_id, answer in list(self.single.items()):
            has_ended = answer.value is not None and is_terminal(answer.value.status)
            if self._single_until[submission_id] > monotonic() and submission_id not in active and not has_ended:
                yield answer

    def _next(self) -> SharedAnswer[Any]:
        if self._failures:
            return self.version
        now = monotonic()
        return max(self._open(), key=lambda answer: answer.overdue(now))

    async def _refresh(self, answer: SharedAnswer[Any]) -> None:
        async with self._lanes.slow if self._failures else self._lanes.usual:
            earlier = answer.error
            try:
                await answer.refresh()
            except Exception as error:
                self._note_failure(error, earlier)
            else:
                self._note_answer(answer)

    def _note_answer(self, answer: SharedAnswer[Any]) -> None:
        if self._failures >= pacing.FAILURES_TO_DISTRUST:
            self._news_from = answer.asked_at
        self._failures = 0

    def _note_failure(self, error: Exception, earlier: Exception | None) -> None:
        self._failures += 1
        # Mending the connection takes effect with the next request.
        self._looked_up_at = -inf
        is_expected = isinstance(error, RayError | TimeoutError | AirflowNotFoundException)
        if not is_expected and type(error) is not type(earlier):
            log.error("Cannot read the cluster of connection %r", self.conn_id, exc_info=error)

    def _answer(self, ask: Callable[[RayClient], Awaitable[T]], period: float) -> SharedAnswer[T]:
        async def asking() -> T:
            async with asyncio.timeout(pacing.PAGE_REQUEST_SECONDS):
                return await ask(await self._opened())

        return SharedAnswer(asking, period=period)

    async def _opened(self) -> RayClient:
        if self._client is None or monotonic() - self._looked_up_at > pacing.PAGE_CONNECTION_SECONDS:
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
        return await RayClient(bounded(config)).__aenter__()

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)

    async def _rest(self) -> None:
        """Pause, unless the cluster answers and has questions left that it has not been asked yet."""
        if not self._failures and any(answer.asked_at < self._news_from for answer in self._open()):
            return
        pause = min(pacing.PAGE_REFRESH_SECONDS * 2 ** min(self._failures, 10), pacing.PAGE_LONGEST_PAUSE_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause * random.uniform(0.9, 1.1)):  # noqa: S311
                await self._wake.wait()
        self._wake.clear()


def bounded(config: ClusterConfig) -> ClusterConfig:
    """The same cluster, with timeouts no longer than the page's."""
    return replace(
        config,
        connect_timeout=min(config.connect_timeout, pacing.PAGE_REQUEST_SECONDS),
        read_timeout=min(config.read_timeout, pacing.PAGE_REQUEST_SECONDS),
    )


async def _version(client: RayClient) -> ClusterVersion:
    return await client.cluster.version()


async def _nodes(client: RayClient) -> Sequence[Node]:
    return await client.cluster.nodes()


async def _usage(client: RayClient) -> Usage | None:
    return Usage.from_text(await client.cluster.status())


async def _jobs(client: RayClient) -> Sequence[JobDetails]:
    return await client.jobs.active()


async def _serve(client: RayClient) -> ServeDetails:
    return await client.serve.details()


async def _job(client: RayClient, *, submission_id: str) -> JobDetails | None:
    try:
        return await client.jobs.get(submission_id)
    except RayNotFound:
        return None
