"""The Jobs API (Ray 2.49-2.60), one method per route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.job_spec import JobSpec, check_known_id
from airflow_provider_ray.client.api.models import ROW_LIMIT, JobDetails
from airflow_provider_ray.client.states import FAILED, PENDING, RUNNING, STOPPED, SUCCEEDED

if TYPE_CHECKING:
    import aiohttp

    from airflow_provider_ray.client.api.http import Http


class _Submitted(msgspec.Struct):
    submission_id: str


class _Stopped(msgspec.Struct):
    stopped: bool


class _Deleted(msgspec.Struct):
    deleted: bool


class Polls:
    """When a job is polled next.

    :param intervals: seconds from one poll to the next.
    """

    def __init__(self, intervals: Iterator[float]) -> None:
        self._intervals = intervals
        self.due = 0.0
        self.done()

    def done(self) -> None:
        """Count a poll that has been made."""
        self.due = monotonic() + next(self._intervals)


class Jobs:
    """Jobs of one cluster."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._logs = asyncio.Semaphore(pacing.LOGS_AT_ONCE)

    @property
    def logs_are_busy(self) -> bool:
        """Whether the maximum number of logs is being read, so that another one has to wait."""
        return self._logs.locked()

    async def submit(self, spec: JobSpec) -> str:
        """Submit a job and return its submission_id. Ray answers a used id with a 500, "already exists"."""
        return (await self._http.read("POST", "/api/jobs/", _Submitted, json=spec.to_json())).submission_id

    async def get(self, submission_id: str) -> JobDetails:
        """Details of one job.

        :raises RayNotFound: when the cluster has no such job.
        """
        return await self._http.read("GET", _path(submission_id), JobDetails, most=pacing.RECORD_BYTES)

    async def list(self) -> Sequence[JobDetails]:
        """All jobs that the cluster remembers, drivers that did not come through the Jobs API included."""
        path, most = "/api/jobs/", pacing.LIST_BYTES
        jobs = await self._http.read("GET", path, list[JobDetails], most=most, timeout=self._http.list_timeout)
        self._http.check_number("GET", path, jobs, pacing.LIST_RECORDS)
        return jobs

    async def active(self) -> Sequence[JobDetails]:
        """Jobs that have not ended, drivers that did not come through the Jobs API included.

        This costs the cluster as much as a list of all jobs, but costs us little: Ray keeps every job, with the end of
        its log if it failed, but sends only the active ones.
        """
        return await self._rows([("status", "!=", status) for status in (SUCCEEDED, FAILED, STOPPED)])

    async def ended(self, limit: int) -> Sequence[JobDetails]:
        """Some of the jobs that have ended, for clusters that have too many to list them all.

        :param limit: how many at most.
        """
        return await self._rows([("status", "!=", status) for status in (PENDING, RUNNING)], limit)

    async def _rows(self, filters: Sequence[tuple[str, str, str]], limit: int = ROW_LIMIT) -> Sequence[JobDetails]:
        """Jobs that the state API selects by key, predicate and value."""
        names = ("filter_keys", "filter_predicates", "filter_values")
        wanted = [pair for each in filters for pair in zip(names, each, strict=True)]
        return await self._http.rows(
            "/api/v0/jobs",
            list[JobDetails],
            limit=limit,
            most=pacing.LIST_BYTES,
            params=wanted,
            timeout=self._http.list_timeout,
        )

    async def wait_for_news(
        self, job: JobDetails, polls: Polls, within: float, *, every_poll: bool = False
    ) -> JobDetails | None:
        """Sleep until there may be something new about a job.

        :param job: the job as last seen.
        :param polls: when it is polled.
        :param within: seconds to sleep at most.
        :param every_poll: return after each poll, even if the job has not changed.
        :returns: the job as it is known now; None if the caller has to request it.
        """
        due = polls.due - monotonic()
        await asyncio.sleep(min(due, within))
        return None if due <= within else job

    async def stop(self, submission_id: str) -> bool:
        """Ask a job to stop; it ends later. False if it had already ended."""
        return (await self._http.read("POST", _path(submission_id) + "/stop", _Stopped)).stopped

    async def delete(self, submission_id: str) -> None:
        """Forget the record of a job that has ended; its log file stays."""
        await self._http.read("DELETE", _path(submission_id), _Deleted)

    @asynccontextmanager
    async def log(self, job: JobDetails, *, lines: int = -1) -> AsyncIterator[aiohttp.StreamReader]:
        """Bytes of the driver log so far.

        The state API passes invalid UTF-8 and long lines through untouched; ``/api/jobs/{id}/logs`` does not.

        :param lines: how many of the last lines, -1 for all.
        """
        query = {
            "node_id": job.driver_node_id or "",
            "filename": f"job-driver-{job.submission_id}.log",
            "lines": str(lines),
        }
        get = self._http.open("GET", "/api/v0/logs/file", params=query, timeout=self._http.stream_timeout)
        async with get as response:
            yield response.content

    @asynccontextmanager
    async def log_turn(self, within: float) -> AsyncIterator[None]:
        """One of the ``pacing.LOGS_AT_ONCE`` turns to read logs.

        :param within: seconds to wait for it.
        :raises TimeoutError: when there is none in that time.
        """
        try:
            async with asyncio.timeout(within):
                await self._logs.acquire()
        except TimeoutError as error:
            busy = f"{pacing.LOGS_AT_ONCE} of the cluster's logs are being read"
            raise TimeoutError(f"{busy}, and there was no turn for another one within {within:g} seconds") from error
        try:
            yield
        finally:
            self._logs.release()


def _path(submission_id: str) -> str:
    check_known_id(submission_id)
    return f"/api/jobs/{quote(submission_id, safe='')}"
