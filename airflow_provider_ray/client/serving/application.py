"""A route of a Serve application: waiting until it answers, and calling it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.addresses import below
from airflow_provider_ray.client.api.retry import patience
from airflow_provider_ray.client.errors import (
    RayAuthLapsed,
    RayClusterUnavailable,
    RayConfigError,
    RayError,
    RayNotADashboard,
    RayNotFound,
    RayRequestError,
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
    from airflow_provider_ray.client.api.serve import Routes
    from airflow_provider_ray.client.jobs.log_relay import Logger

# What answers before Serve or the dashboard does: a server that is starting, or an ingress without its backend.
_NOBODY_THERE = (RayClusterUnavailable, RayNotFound, RayNotADashboard)
# What the dashboard may answer for a while: once it was there, also what it answers while its head restarts.
_PASSING = (RayClusterUnavailable, RayAuthLapsed)
_PASSING_ONCE_THERE = (*_PASSING, *_NOBODY_THERE)
# Serve rejects a request with these before the application sees it; some deployments choose 429.
_TURNED_AWAY = (429, 503)


@dataclass(frozen=True, slots=True)
class _Target:
    """A route that a proxy knows.

    :param url: address to call.
    :param base_url: address of the proxy.
    :param prefix: route prefix of the application, None without an application.
    """

    url: str
    base_url: str
    prefix: str | None


class ServeRoute:
    """A route of a Serve application, from the first check to the answer.

    :param client: the cluster.
    :param application: name of the application; None when ``path`` is the complete route.
    :param path: path below the application's route prefix, or from Serve's root without an application. It is appended
        as it is: ``/`` asks for the prefix with a slash at its end, as FastAPI wants it, and an empty path for the
        prefix without one.
    :param submission_id: the job that should deploy the application; waiting ends when it does.
    :param logger: gets a line for whatever is being waited for, and one for the answer.
    :raises RayConfigError: when one of these cannot work.
    """

    def __init__(
        self,
        client: RayClient,
        application: str | None,
        path: str,
        submission_id: str | None = None,
        *,
        logger: Logger | None = None,
    ) -> None:
        check_route(application, path, submission_id)
        self._client = client
        self._application = application
        self._path = path if path.startswith("/") or not path else f"/{path}"
        self._submission_id = submission_id
        self._logger = logger
        self.missing = "nothing is known yet"
        self._told = ""
        self._was_there = False
        self._away_since: float | None = None
        self._mixed_since: float | None = None
        self._certain_until = -inf

    def __str__(self) -> str:
        return f"application {self._application!r}" if self._application else f"route {self._path!r}"

    async def wait(self, *, poll_interval: float, timeout: float) -> str:
        """Wait until a proxy knows the route and return its URL.

        :param poll_interval: longest time between two checks, in seconds; the first ones are more frequent.
        :param timeout: seconds from now; 0 for a single check, however long it takes, and less for a short one.
        :raises RayServeNotReady: when the time is up; the error says what was missing last.
        :raises RayServeDeployFailed: when Ray could not deploy the application.
        :raises RayServeError: when the job that should serve has ended, or the route leads out of Serve.
        :raises RayJobLost: when the cluster does not know that job.
        """
        return (await self._wait(poll_interval, timeout)).url

    async def url(self, within: float | None = None) -> str | None:
        """The route's URL if a proxy knows it now; otherwise None, and ``missing`` says why.

        :param within: seconds for the check; None for as long as it takes.
        :raises RayRequestError: when the dashboard has not answered for ``[ray] fault_budget`` seconds.
        :raises RayAuthLapsed: when it has rejected, for ``[ray] auth_budget`` seconds, credentials that it accepted
            before.
        :raises RayJobLost: when the cluster does not know the job that should serve.
        """
        target = await self._look(within)
        return None if target is None else target.url

    async def call(self, *, poll_interval: float, timeout: float, **request: Any) -> Any:
        """Wait for the route, call it, and return the decoded JSON; repeat a call that was turned away.

        This covers a connection that was never made, a 503 (at capacity, or no replica yet) and a 429 at any time, a
        404 while the application is not running, and, for a GET, a broken connection and a 408 while it is not running.

        :param poll_interval: longest time between two checks, and the time between two calls, in seconds.
        :param timeout: seconds from now for waiting and repeated calls together.
        :param request: what :meth:`airflow_provider_ray.client.api.serve.Serve.call` takes.
        :raises RayServeError: what :meth:`wait` raises, an answer that cannot be used, or another cluster that answers
            at the same address.
        :raises RayClusterUnavailable: when a call that may have been processed got no answer.
        :raises RayAuthLapsed: see :meth:`url`.
        """
        deadline, left = monotonic() + timeout, timeout
        while True:
            target = await self._wait(poll_interval, left)
            if await self._is_everywhere(target):
                try:
                    return await self._answer(target.url, request)
                except (RayAuthLapsed, RayClusterUnavailable, RayServeBadAnswer) as error:
                    is_get = request.get("method", "GET").upper() == "GET"
                    if monotonic() >= deadline or not await self._may_repeat(error, is_get):
                        raise
                    self._lacks(f"the call is repeated after {error}", logging.WARNING)
            elif monotonic() >= deadline:
                raise self._not_ready()
            await asyncio.sleep(max(min(poll_interval, deadline - monotonic()), pacing.SHORTEST_INTERVAL_SECONDS))
            left = deadline - monotonic()

    async def _answer(self, url: str, request: dict[str, Any]) -> Any:
        answer = await self._client.serve.call(url, **request)
        if self._logger is not None:
            method, said = request.get("method", "GET").upper(), (answer.status, answer.size, answer.seconds)
            self._logger.log(logging.INFO, "%s %s: status %d, %d bytes in %.2f s", method, url, *said)
        return answer.value

    async def _may_repeat(self, error: RayError, is_get: bool) -> bool:
        if isinstance(error, RayAuthLapsed):
            # Whatever rejected the old credentials did not pass the call on.
            return True
        if isinstance(error, RayClusterUnavailable):
            return error.never_sent or is_get
        status = error.status if isinstance(error, RayServeBadAnswer) else None
        if status in _TURNED_AWAY:
            return True
        is_doubtful = status == 404 or (status == 408 and is_get)
        return is_doubtful and await self._look() is None

    async def _wait(self, poll_interval: float, timeout: float) -> _Target:
        deadline, pause, pauses = monotonic() + timeout, 0.0, intervals(poll_interval)
        while True:
            await asyncio.sleep(max(min(self._client.serve.paced(pause), deadline - monotonic()), 0))
            left = deadline - monotonic()
            target = await self._look(max(left, pacing.SERVE_LAST_LOOK_SECONDS) if timeout else None)
            if target is not None:
                return target
            if monotonic() >= deadline:
                raise self._not_ready()
            pause = next(pauses)

    def _not_ready(self) -> RayServeNotReady:
        return RayServeNotReady(f"Serve {self} did not answer in time: {self.missing}")

    def _lacks(self, what: str, level: int = logging.INFO) -> None:
        """Remember what is missing, and log it if it is news."""
        self.missing = what
        if self._logger is not None and what != self._told:
            self._told = what
            self._logger.log(level, "Waiting for Serve %s: %s", self, what[: pacing.SERVE_NEWS_CHARACTERS])

    async def _look(self, within: float | None = None) -> _Target | None:
        """Check once, for no longer than so many seconds."""
        try:
            async with asyncio.timeout(within):
                return await self._look_patiently()
        except TimeoutError:
            self._lacks(f"no answer in time; before that: {self.missing}", logging.WARNING)
            return None

    async def _look_patiently(self) -> _Target | None:
        """Check once; tolerate a dashboard that does not answer or rejects credentials, but not forever."""
        try:
            ended = await self._ended_job()
            target = await self._find()
        except RayRequestError as error:
            if not isinstance(error, _PASSING_ONCE_THERE if self._was_there else _PASSING):
                raise
            self._away_since = self._away_since or monotonic()
            if monotonic() - self._away_since > patience(error):
                raise
            self._lacks(f"{error} (tolerated for {patience(error):g} s)", logging.WARNING)
            return None
        self._was_there, self._away_since, self._client.accepted = True, None, True
        if target is None and ended is not None:
            said = _last(ended.message, pacing.SERVE_MESSAGE_CHARACTERS)
            reason = f"status={ended.status} driver_exit_code={ended.driver_exit_code}\n{said}"
            raise RayServeError(f"Ray job {self._submission_id!r} ended before Serve {self} answered: {reason}")
        return target

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

    async def _find(self) -> _Target | None:
        if self._application is None:
            return await self._routed(None, await self._client.serve.base_url())
        details = await self._client.serve.details()
        found = details.applications.get(self._application)
        if found is None:
            self._lacks("the cluster has no such application")
            return None
        said = _last(found.message, pacing.SERVE_MESSAGE_CHARACTERS)
        if found.status == APPLICATION_DEPLOY_FAILED:
            raise RayServeDeployFailed(f"Serve application {self._application!r}: DEPLOY_FAILED\n{said}")
        if found.status != APPLICATION_RUNNING or found.route_prefix is None:
            no_route = "without a route prefix " if found.status == APPLICATION_RUNNING else ""
            self._lacks(f"status={found.status[:100]} {no_route}{said}".rstrip())
            return None
        return await self._routed(found.route_prefix.rstrip("/"), await self._client.serve.base_url(details))

    async def _routed(self, prefix: str | None, base_url: str | None) -> _Target | None:
        """A proxy learns of an application a moment after Ray calls it RUNNING."""
        if base_url is None:
            self._lacks("Serve is not running on the cluster")
            return None
        target = _Target(self._address(base_url, prefix), base_url, prefix)
        try:
            routes = await self._client.serve.routes(base_url)
        except _NOBODY_THERE as error:
            self._lacks(str(error))
            return None
        return target if self._all_know(target, [routes]) else None

    def _address(self, base_url: str, prefix: str | None) -> str:
        """Where to call; neither the cluster's prefix nor the author's path may lead out of what it is appended to."""
        try:
            # Ray's prefix is text, not a part of a URL.
            root = below(base_url, quote(prefix or ""))
        except ValueError as error:
            raise RayServeError(f"Serve {self} has a route prefix that cannot be called: {error}"[:500]) from error
        try:
            return below(root, self._path)
        except ValueError as error:
            raise RayConfigError("path", repr(self._path), f"a path below {root}") from error

    async def _is_everywhere(self, target: _Target) -> bool:
        """Whether whatever listens at the address knows the route, on any connection.

        Two clusters on one host with the same Serve port silently share it, connection by connection. One check counts
        for all repetitions of a call within a minute.
        """
        if monotonic() < self._certain_until:
            return True
        try:
            answers = await self._client.serve.routes_of_many(target.base_url, pacing.ROUTE_LOOKS)
        except _NOBODY_THERE as error:
            self._lacks(str(error))
            return False
        is_known = self._all_know(target, answers)
        # None of them knows an application that was deleted a moment ago.
        is_mixed = not is_known and any(self._is_known(routes, target.prefix) for routes in answers)
        self._mixed_since = (self._mixed_since or monotonic()) if is_mixed else None
        if self._mixed_since is not None and monotonic() - self._mixed_since > pacing.PROXIES_LEARN_SECONDS:
            raise RayServeError(
                f"Serve {self}: only some of the answers from {target.base_url} know its route, so another Serve"
                " listens there as well; each cluster on a host needs a Serve port of its own"
            )
        if is_known:
            self._certain_until = monotonic() + pacing.ROUTE_LOOKS_HOLD_SECONDS
        return is_known

    def _all_know(self, target: _Target, answers: Sequence[Routes]) -> bool:
        strange = [routes for routes in answers if not self._is_known(routes, target.prefix)]
        if strange:
            names = sorted(strange[0])
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            self._lacks(f"the proxy at {target.base_url} has the routes {names[:20]}{more}")
        return not strange

    def _is_known(self, routes: Routes, prefix: str | None) -> bool:
        if prefix is not None:
            return routes.get(prefix or "/") == self._application
        path = unquote(self._path.partition("?")[0])
        return any(f"{path}/".startswith(f"{route.rstrip('/')}/") for route in routes)


def check_route(application: Any, path: Any, submission_id: Any) -> None:
    """Reject what cannot name a route.

    :raises RayConfigError: naming the argument.
    """
    if not isinstance(path, str):
        raise RayConfigError("path", repr(path), "a path such as /predict")
    if "#" in path:
        raise RayConfigError("path", repr(path), "a path without '#', which is written %23 in a path or query")
    for name, value in (("application", application), ("submission_id", submission_id)):
        if value is not None and not (isinstance(value, str) and value):
            raise RayConfigError(name, repr(value), "a name, or None")


def _last(text: str | None, characters: int) -> str:
    """The end of a text, where a traceback has its reason."""
    return (text or "")[-characters:]
