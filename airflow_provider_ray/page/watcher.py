"""Looks at clusters in the background, so that a page costs them the same for one browser as for a hundred.

A thread with an event loop of its own: neither a name server that is slow nor a cluster that sends much holds up the
API server's loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from threading import Lock, Thread
from time import monotonic

from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.clusters.discovery import all_conn_ids
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.page.watch import ClusterWatch, Lanes, Pace, bounded

USUAL_REQUESTS, SLOW_REQUESTS, LOOKUPS, STOPS = 64, 16, 8, 16
# What was known of a cluster is shown again to who comes back within this time.
REMEMBERED_SECONDS = 600.0
CLOSE_SECONDS = 10.0


class Watcher:
    """All clusters that somebody looks at.

    Nothing runs before the first look, and nothing is asked when nobody has looked for ``pace.idle`` seconds.

    :param pace: how often to ask.
    """

    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self._watches: dict[str, ClusterWatch] = {}
        self._lanes = Lanes(asyncio.Semaphore(USUAL_REQUESTS), asyncio.Semaphore(SLOW_REQUESTS))
        self._stops = asyncio.Semaphore(STOPS)
        self._lookups = ThreadPoolExecutor(LOOKUPS, "ray-page-connections")
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name="ray-page", daemon=True)
        self._lock, self._listing = Lock(), Lock()
        self._conn_ids: Sequence[str] = ()
        self._conn_ids_until = -inf

    def conn_ids(self) -> Sequence[str]:
        """All connections of type ``ray``; a few seconds old, and older while another request waits for new ones.

        Blocks the one who asks Airflow, and nobody else: a secrets backend may hang.
        """
        if monotonic() > self._conn_ids_until and self._listing.acquire(blocking=False):
            try:
                self._conn_ids = all_conn_ids()
            finally:
                self._conn_ids_until = monotonic() + self.pace.listing
                self._listing.release()
        return self._conn_ids

    def look(self, wanted: Mapping[str, Collection[str]]) -> Sequence[ClusterWatch]:
        """What is known of some clusters, without waiting for any; they are looked at from now on.

        :param wanted: submission_ids that are wanted even when the job has ended, by connection id.
        """
        now = monotonic()
        with self._lock:
            self._start()
            self._forget(now)
            for conn_id, jobs in wanted.items():
                if conn_id not in self._watches:
                    self._watches[conn_id] = ClusterWatch(conn_id, self._config, self._lanes, self.pace)
                keep_running = self._watches[conn_id].keep_running
                self._loop.call_soon_threadsafe(keep_running, now + self.pace.idle, jobs)
            return [self._watches[conn_id] for conn_id in wanted]

    async def stop_job(self, conn_id: str, submission_id: str) -> bool:
        """Tell a job to stop; False when it had ended already.

        :raises RayError: when the cluster refuses, or has no such job.
        :raises TimeoutError: when it does not answer in time.
        """
        with self._lock:
            self._start()
        work = self._stop_job(conn_id, submission_id)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def close(self) -> None:
        """End all looking, for good."""
        with self._lock:
            if self._thread.is_alive():
                asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(CLOSE_SECONDS)
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(CLOSE_SECONDS)
            self._loop.close()
            self._lookups.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        if not self._thread.is_alive():
            self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _forget(self, now: float) -> None:
        gone = [name for name, watch in self._watches.items() if watch.wanted_until + REMEMBERED_SECONDS < now]
        for conn_id in gone:
            del self._watches[conn_id]

    async def _config(self, conn_id: str) -> ClusterConfig:
        return await self._loop.run_in_executor(self._lookups, lambda: RayHook(conn_id).get_config())

    async def _stop_job(self, conn_id: str, submission_id: str) -> bool:
        async with asyncio.timeout(self.pace.request), self._stops:
            config = bounded(await self._config(conn_id), self.pace)
            async with RayClient(config) as client:
                is_stopping = await client.jobs.stop(submission_id)
        if watch := self._watches.get(conn_id):
            watch.ask_for_jobs()
        return is_stopping

    async def _end(self) -> None:
        await asyncio.gather(*(watch.end() for watch in self._watches.values()))
