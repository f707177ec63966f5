"""A route of a Serve application: waiting until it answers, and calling it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.errors import (
    RayClusterUnavailable,
    RayNotADashboard,
    RayNotFound,
    RayServeBadAnswer,
    RayServeDeployFailed,
    RayServeError,
    RayServeNotReady,
)
from airflow_provider_ray.client.jobs.submission import get_for_certain
from airflow_provider_ray.client.jobs.waiting import intervals, lost
from airflow_provider_ray.client.states import APPLICATION_DEPLOY_FAILED, APPLICATION_RUNNING, is_terminal

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.api.ray_client import RayClient


class ServeRoute:
    """A route of a Serve application, from the first check to the answer.

    :param client: the cluster.
    :param application: name of the application; None when ``path`` is the complete route.
    :param path: path below the application's route prefix, or from Serve's root without an application.
    :param submission_id: the job that should deploy the application; waiting ends when it does.
    """

    def __init__(self, client: RayClient, application: str | None, path: str, submission_id: str | None = None) -> None:
        self._client = client
        self._application = application
        self._path = path if path.startswith("/") else f"/{path}"
        self._submission_id = submission_id
        self.missing = "nothing is known yet"
        self._away_since: float | None = None
        self._mixed_since: float | None = None

    def __str__(self) -> str:
        return f"application {self._application!r}" if self._application else f"route {self._path!r}"

    async def wait(self, *, poll_interval: float, timeout: float) -> str:
        """Wait until the route can be called and return its URL.

        :param poll_interval: longest time between two checks, in seconds; the first ones are more frequent.
        :param timeout: seconds from now.
        :raises RayServeNotReady: when the time is up; the error says what was missing last.
        :raises RayServeDeployFailed: when Ray could not deploy the application.
        :raises RayServeError: when the job that should serve has ended, or another cluster answers at this address.
        :raises RayJobLost: when the cluster does not know that job.
        """
        deadline = monotonic() + timeout
        pauses = intervals(poll_interval)
        while (url := await self.url()) is None:
            left = deadline - monotonic()
            if left <= 0:
                raise RayServeNotReady(f"Serve {self} did not answer in time: {self.missing}")
            await asyncio.sleep(min(next(pauses), left))
        return url

    async def url(self) -> str | None:
        """The route's URL if it can be called now; otherwise None, and ``missing`` says why.

        :raises RayClusterUnavailable: when the dashboard has not answered for ``[ray] fault_budget`` seconds.
        :raises RayJobLost: when the cluster does not know the job that should serve.
        """
        try:
            ended = await self._ended_job()
            url = await self._find_url()
        except RayClusterUnavailable as error:
            self._away_since = self._away_since or monotonic()
            if monotonic() - self._away_since > pacing.FAULT_BUDGET_SECONDS:
                raise
            self.missing = str(error)
            return None
        self._away_since = None
        if url is None and ended is not None:
            reason = f"status={ended.status} driver_exit_code={ended.driver_exit_code}\n{ended.message or ''}"
            raise RayServeError(f"Ray job {self._submission_id!r} ended before Serve {self} answered: {reason}")
        return url

    async def call(self, *, poll_interval: float, timeout: float, **request: Any) -> Any:
        """Wait for the route and call it; repeat a call that did not reach the application or was turned away.

        This covers a connection that was never made and a 503 (at capacity, or no replica yet) at any time, a 404 while
        the application is not running, and, for a GET, a broken connection and a 408 while it is not running.

        :param poll_interval: longest time between two checks, and the time between two calls, in seconds.
        :param timeout: seconds from now for waiting and repeated calls together.
        :param request: what :meth:`airflow_provider_ray.client.api.serve.Serve.call` takes.
        :raises RayServeError: what :meth:`wait` raises, or an answer that cannot be used.
        :raises RayClusterUnavailable: when a call that may have been processed got no answer.
        """
        deadline = monotonic() + timeout
        while True:
            url = await self.wait(poll_interval=poll_interval, timeout=max(deadline - monotonic(), 0))
            try:
                return await self._client.serve.call(url, **request)
            except (RayClusterUnavailable, RayServeBadAnswer) as error:
                is_get = request.get("method", "GET").upper() == "GET"
                if monotonic() >= deadline or not await self._may_repeat(error, is_get):
                    raise
                self.missing = str(error)
            await asyncio.sleep(max(min(poll_interval, deadline - monotonic()), pacing.SHORTEST_INTERVAL_SECONDS))

    async def _may_repeat(self, error: RayClusterUnavailable | RayServeBadAnswer, is_get: bool) -> bool:
        if isinstance(error, RayClusterUnavailable):
            return error.never_sent or is_get
        if error.status == 503:
            return True
        turned_away = error.status == 404 or (error.status == 408 and is_get)
        return turned_away and await self.url() is None

    async def _ended_job(self) -> JobDetails | None:
        """The job that should deploy the application, if it has ended; what it deployed may live on."""
        if self._submission_id is None:
            return None
        try:
            # No retries here: the caller tolerates transient faults.
            job = await get_for_certain(self._client, self._submission_id, was_there=True, budget=0)
        except RayNotFound as error:
            raise lost(self._submission_id, "its cluster has no record of it") from error
        return job if is_terminal(job.status) else None

    async def _find_url(self) -> str | None:
        if self._application is None:
            return await self._routed("", None, await self._client.serve.base_url())
        details = await self._client.serve.details()
        found = details.applications.get(self._application)
        if found is None:
            self.missing = "the cluster has no such application"
            return None
        if found.status == APPLICATION_DEPLOY_FAILED:
            raise RayServeDeployFailed(f"Serve application {found.name!r}: DEPLOY_FAILED\n{found.message or ''}")
        if found.status != APPLICATION_RUNNING or found.route_prefix is None:
            self.missing = f"status={found.status} route_prefix={found.route_prefix} {found.message or ''}".rstrip()
            return None
        base_url = await self._client.serve.base_url(details)
        return await self._routed(found.route_prefix.rstrip("/"), found.name, base_url)

    async def _routed(self, prefix: str, application: str | None, base_url: str | None) -> str | None:
        """A proxy learns of an application a moment after Ray calls it RUNNING."""
        if base_url is None:
            self.missing = "Serve is not running on the cluster"
            return None
        try:
            answers = [await self._client.serve.routes(base_url)]
            if self._is_known(answers[0], prefix, application):
                others = (self._client.serve.routes(base_url) for _ in range(pacing.ROUTE_LOOKS - 1))
                answers += await asyncio.gather(*others)
        except (RayClusterUnavailable, RayNotFound, RayNotADashboard) as error:
            # A proxy that is starting, or an ingress that has no Serve behind it yet.
            self.missing = str(error)
            return None
        strange = [routes for routes in answers if not self._is_known(routes, prefix, application)]
        if len(answers) > 1:
            self._check_alone(base_url, is_mixed=bool(strange))
        if strange:
            self.missing = f"the proxy at {base_url} has the routes {sorted(strange[0])!s:.2000}"
            return None
        return f"{base_url}{prefix}{self._path if self._path != '/' or not prefix else ''}"

    def _is_known(self, routes: Mapping[str, str], prefix: str, application: str | None) -> bool:
        if application:
            return routes.get(prefix or "/") == application
        return any(f"{self._path.partition('?')[0]}/".startswith(f"{route.rstrip('/')}/") for route in routes)

    def _check_alone(self, base_url: str, *, is_mixed: bool) -> None:
        """Two clusters on one host with the same Serve port silently share it, connection by connection."""
        self._mixed_since = (self._mixed_since or monotonic()) if is_mixed else None
        if self._mixed_since is not None and monotonic() - self._mixed_since > pacing.PROXIES_LEARN_SECONDS:
            raise RayServeError(
                f"Serve {self}: only some of the answers from {base_url} know its route, so another Serve listens there"
                " as well; each cluster on a host needs a Serve port of its own"
            )
