"""The limit on concurrent jobs on a cluster: a job is submitted when there is room, in the order of arrival.

The jobs in flight are those active in the cluster's list, which everyone in an event loop shares, and those admitted
since that list was requested. So one event loop never exceeds the limit; others that submit to the same cluster at
the same moment count separately.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.retry import retrying
from airflow_provider_ray.client.errors import RayError, RayJobTimeout, RayTriggerError
from airflow_provider_ray.client.jobs.submission import NONCE_KEY, check_package, has_nonce
from airflow_provider_ray.client.jobs.waiting import intervals
from airflow_provider_ray.client.states import is_terminal

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.job_spec import JobSpec
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.api.ray_client import RayClient


@asynccontextmanager
async def place(
    client: RayClient, spec: JobSpec, *, poll_interval: float, timeout: float | None, waits: Callable[[str], None]
) -> AsyncIterator[JobDetails | None]:
    """Wait until a cluster has room for a job, and hold its place while it is submitted inside the block.

    Yields the job if the cluster already has it, else None. All jobs that this package submitted count.

    :param client: the client shared by all that wait for this cluster; without ``max_jobs`` there is always room.
    :param poll_interval: longest time between two polls, in seconds; the first ones are more frequent.
    :param timeout: seconds to wait for room, None for no limit.
    :param waits: called once with the number of jobs in flight, unless there is room at once.
    :raises RayJobTimeout: when there was no room in time.
    :raises RayTriggerError: when the cluster has lost the uploaded working_dir in the meantime.
    :raises RayRequestError: when the cluster rejects the request, or is unavailable for longer than ``[ray]
        fault_budget``.
    """
    if client.config.max_jobs is None:
        yield None
        return
    in_flight = _by_client.setdefault(client, _InFlight(client.config.max_jobs))
    with in_flight.line(spec) as admission:
        job = await in_flight.wait(
            client, spec, admission, pauses=intervals(poll_interval), timeout=timeout, waits=waits
        )
    with in_flight.held(spec):
        yield job


class _InFlight:
    """The jobs that wait for room on a cluster, and those that were admitted."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[asyncio.Future[None], str] = {}
        self._admitted: dict[str, float] = {}  # not in any list yet, and until when they still count
        self._listed: Sequence[JobDetails] | None = None
        self._ours: Mapping[str, JobDetails] = {}
        self._active = 0
        self._packages: dict[str, float] = {}  # and when to ask for them again

    @contextmanager
    def line(self, spec: JobSpec) -> Iterator[asyncio.Future[None]]:
        """Stand in line until the block ends."""
        admission: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[admission] = spec.submission_id
        try:
            yield admission
        except BaseException:
            self._admitted.pop(spec.submission_id, None)
            raise
        finally:
            self._waiting.pop(admission, None)

    @contextmanager
    def held(self, spec: JobSpec) -> Iterator[None]:
        """Count a job that is submitted in the block until a list shows it."""
        try:
            yield
        except RayError:
            # If it did arrive, the next list shows it.
            self._admitted.pop(spec.submission_id, None)
            raise
        finally:
            if spec.submission_id in self._admitted:
                self._admitted[spec.submission_id] = monotonic() + pacing.UNSEEN_SECONDS

    async def wait(
        self,
        client: RayClient,
        spec: JobSpec,
        admission: asyncio.Future[None],
        *,
        pauses: Iterator[float],
        timeout: float | None,
        waits: Callable[[str], None],
    ) -> JobDetails | None:
        """Wait until the job is admitted, or is found to be there."""
        deadline = math.inf if timeout is None else monotonic() + timeout
        has_said = False
        while not admission.done():
            in_flight = await self._look(client)
            job = self._ours.get(spec.submission_id)
            if job is not None and has_nonce(job, spec.metadata[NONCE_KEY]):
                return job
            if admission.done():
                break
            if monotonic() >= deadline:
                reason = f"was not submitted: no room within its room_timeout, {in_flight}"
                raise RayJobTimeout.from_message(f"Ray job {spec.submission_id!r} {reason}")
            if not has_said:
                waits(in_flight)
                has_said = True
            await self._keep_package(client, spec)
            pause = min(next(pauses), pacing.PACKAGE_SECONDS, max(deadline - monotonic(), 0))
            await asyncio.wait([admission], timeout=pause)
        return None

    async def _look(self, client: RayClient) -> str:
        """Count the jobs in flight, and admit as many of those in line as there is room for."""
        listed = await retrying(client.jobs.list)
        if listed is not self._listed:
            # Everyone in line gets the same list.
            self._count(listed)
        self._admit()
        return f"{self._active + len(self._admitted)} of {self._limit} jobs in flight"

    def _count(self, listed: Sequence[JobDetails]) -> None:
        ours = [job for job in listed if job.submission_id and NONCE_KEY in (job.metadata or {})]
        self._listed = listed
        self._ours = {str(job.submission_id): job for job in ours}
        self._active = sum(not is_terminal(job.status) for job in ours)

    def _admit(self) -> None:
        now = monotonic()
        for name in [name for name, until in self._admitted.items() if name in self._ours or until < now]:
            del self._admitted[name]
        free = self._limit - self._active - len(self._admitted)
        for admission in list(islice(self._waiting, max(free, 0))):
            self._admitted[self._waiting.pop(admission)] = math.inf
            admission.set_result(None)

    async def _keep_package(self, client: RayClient, spec: JobSpec) -> None:
        """Request the job's uploaded package now and then, so that Ray does not forget it."""
        uri = str(spec.runtime_env.get("working_dir") or "")
        if self._packages.get(uri, 0.0) > monotonic():
            return
        self._packages[uri] = monotonic() + pacing.PACKAGE_SECONDS
        try:
            await check_package(client, spec)
        except RayTriggerError:
            self._packages.pop(uri, None)
            raise


_by_client: WeakKeyDictionary[RayClient, _InFlight] = WeakKeyDictionary()
