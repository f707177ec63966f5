"""Watches clusters in the background, so that the page costs them the same for one browser as for a hundred.

It runs in a thread with an event loop of its own: neither a slow name server nor a large answer delays the loop of
the API server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from math import inf
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.threads import started
from airflow_provider_ray.clusters.discovery import all_conn_ids
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.page.cluster_watch import ClusterWatch, Lanes, bounded

if TYPE_CHECKING:
    from airflow_provider_ray.client.config import ClusterConfig


class Watcher:
    """All clusters that browsers show.

    Nothing runs before the first request of a browser, and a cluster is no longer asked when no browser has asked for
    it for ``pacing.PAGE_IDLE_SECONDS``.
    """

    def __init__(self) -> None:
        self._watches: dict[str, ClusterWatch] = {}
        usual, slow = pacing.PAGE_REQUESTS_AT_ONCE, pacing.PAGE_SLOW_REQUESTS_AT_ONCE
        self._lanes = Lanes(asyncio.Semaphore(usual), asyncio.Semaphore(slow))
        self._stops = asyncio.Semaphore(pacing.PAGE_STOPS_AT_ONCE)
        self._lookups: dict[str, Future[ClusterConfig]] = {}
        self._lookup_places = asyncio.Semaphore(pacing.PAGE_LOOKUPS_AT_ONCE)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name="ray-page", daemon=True)
        self._lock, self._listing = Lock(), Lock()
        self._conn_ids: Sequence[str] = ()
        self._conn_ids_until = -inf

    def conn_ids(self) -> Sequence[str]:
        """All connections of type ``ray``, as of a few seconds ago, or longer while another request is listing them.

        Blocks the request that lists them and no other: a secrets backend may hang.
        """
        if monotonic() > self._conn_ids_until and self._listing.acquire(blocking=False):
            try:
                self._conn_ids = all_conn_ids()
            finally:
                self._conn_ids_until = monotonic() + pacing.PAGE_CONNECTIONS_SECONDS
                self._listing.release()
        return self._conn_ids

    def look(self, wanted: Mapping[str, Collection[str]]) -> Sequence[ClusterWatch]:
        """What is known of some clusters, without waiting for any; from now on it is kept fresh.

        :param wanted: submission_ids of jobs to be known even when they have ended, by connection id.
        """
        now = monotonic()
        with self._lock:
            self._start()
            self._forget(now)
            for conn_id, jobs in wanted.items():
                if conn_id not in self._watches:
                    self._watches[conn_id] = ClusterWatch(conn_id, self._config, self._lanes)
                keep_running = self._watches[conn_id].keep_running
                self._loop.call_soon_threadsafe(keep_running, now + pacing.PAGE_IDLE_SECONDS, jobs)
            return [self._watches[conn_id] for conn_id in wanted]

    async def stop_job(self, conn_id: str, submission_id: str) -> bool:
        """Stop a job; False when it had already ended.

        :raises RayError: when the cluster refuses, or has no such job.
        :raises TimeoutError: when it does not answer in time.
        """
        with self._lock:
            self._start()
        work = self._stop_job(conn_id, submission_id)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def close(self) -> None:
        """Stop everything; nothing can be started again."""
        with self._lock:
            if self._thread.is_alive():
                asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(pacing.PAGE_CLOSE_SECONDS)
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(pacing.PAGE_CLOSE_SECONDS)
            self._loop.close()

    def _start(self) -> None:
        if not self._thread.is_alive():
            self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _forget(self, now: float) -> None:
        oldest = now - pacing.PAGE_REMEMBERED_SECONDS
        gone = [conn_id for conn_id, watch in self._watches.items() if watch.wanted_until < oldest]
        for conn_id in gone:
            del self._watches[conn_id]

    async def _config(self, conn_id: str) -> ClusterConfig:
        """Look a connection up, once at a time.

        One that hangs, in a secrets backend, keeps its thread but not its place, so that it does not delay the others.
        """
        lookup = self._lookups.get(conn_id)
        if lookup is None or lookup.done():
            async with self._lookup_places:
                lookup = self._lookups[conn_id] = started(lambda: RayHook(conn_id).get_config())
                with suppress(TimeoutError):
                    async with asyncio.timeout(pacing.PAGE_LOOKUP_SECONDS):
                        return await asyncio.wrap_future(lookup)
        return await asyncio.wrap_future(lookup)

    async def _stop_job(self, conn_id: str, submission_id: str) -> bool:
        async with asyncio.timeout(pacing.PAGE_REQUEST_SECONDS), self._stops:
            config = bounded(await self._config(conn_id))
            async with RayClient(config) as client:
                is_stopping = await client.jobs.stop(submission_id)
        if watch := self._watches.get(conn_id):
            watch.ask_for_jobs()
        return is_stopping

    async def _end(self) -> None:
        await asyncio.gather(*(watch.end() for watch in self._watches.values()))
