"""Polling jobs: until one appears, until it ends, until it has stopped."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import TYPE_CHECKING

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.jobs import Polls
from airflow_provider_ray.client.api.retry import retrying
from airflow_provider_ray.client.errors import (
    RayError,
    RayJobLost,
    RayJobTimeout,
    RayNotADashboard,
    RayNotFound,
)
from airflow_provider_ray.client.jobs.submission import INSTALLATION_KEY, get_for_certain, has_nonce
from airflow_provider_ray.client.states import PENDING, STOPPED, SUCCEEDED, is_terminal

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.api.ray_client import RayClient
    from airflow_provider_ray.client.jobs.driver_log import DriverLog

logger = logging.getLogger(__name__)


async def wait_for_job(
    client: RayClient,
    submission_id: str,
    *,
    poll_interval: float,
    timeout: float | None = None,
    startup_timeout: float | None = None,
    log: DriverLog | None = None,
    owned: bool = False,
) -> JobDetails:
    """Poll a job until it ends or the time is up, and return its details at that point.

    :param poll_interval: maximum seconds between two polls; the first polls are more frequent.
    :param timeout: seconds from now, None for no limit.
    :param startup_timeout: seconds from now within which the job must leave PENDING, None for no limit.
    :param log: delivers the lines of the driver log.
    :param owned: the caller submitted the job: it is known to exist, and it is stopped when the time is up or it is
        given up as lost.
    :raises RayNotFound: when the cluster has no such job.
    :raises RayJobLost: when the cluster has forgotten the job, or the node of its driver is gone.
    :raises RayRequestError: when the cluster refuses a request, or is unavailable for longer than ``[ray]
        fault_budget``.
    """
    deadline = None if timeout is None else monotonic() + timeout
    startup_deadline = None if startup_timeout is None else monotonic() + startup_timeout
    polls, job, known = Polls(intervals(poll_interval)), None, None
    client.accepted = client.accepted or owned
    while True:
        job = known or await _next(client, submission_id, polls, was_there=owned or job is not None)
        client.accepted = True
        if is_terminal(job.status):
            if log is not None:
                await log.deliver(job, final=True)
            return job
        if job.status != PENDING:
            startup_deadline = None
        ends = min((each for each in (deadline, startup_deadline) if each is not None), default=None)
        if reason := await client.health.why_lost(job, within=_left(ends)):
            return await _give_up(client, submission_id, reason, owned, log)
        if log is not None:
            await log.deliver(job, within=_left(ends))
        left = _left(ends)
        if left is not None and left <= 0:
            return await _stop_late(client, job, log) if owned else job
        known = await _news(client, job, polls, left, with_log=log is not None)


async def _news(
    client: RayClient, job: JobDetails, polls: Polls, left: float | None, *, with_log: bool
) -> JobDetails | None:
    """Wait for news of a job. Without any, its log may have some, and the state of its node must be checked."""
    within = pacing.NODES_LOOK_SECONDS if left is None else min(left, pacing.NODES_LOOK_SECONDS)
    news = await client.jobs.wait_for_news(job, polls, within, every_poll=with_log)
    # The verdict on a job whose time is up needs its state as it is then.
    return None if news is job and left is not None and left <= within else news


async def _next(client: RayClient, submission_id: str, polls: Polls, *, was_there: bool) -> JobDetails:
    polls.done()
    if not was_there:
        return await get_for_certain(client, submission_id)
    try:
        return await get_for_certain(client, submission_id, was_there=True)
    except RayNotFound as error:
        raise lost(submission_id, "its cluster no longer has a record of it") from error


async def _give_up(
    client: RayClient, submission_id: str, reason: str, owned: bool, log: DriverLog | None
) -> JobDetails:
    """Stop the caller's own job in case its driver is still alive; return the job if it has succeeded after all."""
    if owned:
        try:
            last = await stop_job(client, submission_id, within=pacing.LOST_STOP_SECONDS)
        except RayError as error:
            logger.warning("Could not send a stop request for lost Ray job %r: %s", submission_id, error)
        else:
            if last is not None and last.status == SUCCEEDED:
                if log is not None:
                    await log.deliver(last, final=True)
                return last
    raise lost(submission_id, reason)


def lost(submission_id: str, reason: str) -> RayJobLost:
    """The error for a job whose result will never be known."""
    return RayJobLost.from_message(f"Ray job {submission_id!r} is lost: {reason}")


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - monotonic()


def intervals(longest: float) -> Iterator[float]:
    """Seconds between polls: short for the first minute, then growing up to ``longest``."""
    interval, elapsed = pacing.FIRST_INTERVAL_SECONDS, 0.0
    while True:
        pause = max(min(interval, longest), pacing.SHORTEST_INTERVAL_SECONDS)
        yield pause
        elapsed += pause
        if elapsed > pacing.QUICK_SECONDS:
            interval *= 1.5


async def _stop_late(client: RayClient, job: JobDetails, log: DriverLog | None) -> JobDetails:
    """Stop a job whose time is up; it counts as unfinished unless it ended by itself while being stopped."""
    try:
        last = await stop_job(client, str(job.submission_id))
    except RayError as error:
        logger.error("Ray job %r could not be stopped and may still be running: %s", job.submission_id, error)
        return job
    if last is None:
        return job
    if not is_terminal(last.status):
        hint = "; Ray will stop it when it starts" if last.status == PENDING else ""
        logger.warning(
            "Ray job %r has not stopped yet after a stop request: status=%s%s", job.submission_id, last.status, hint
        )
    elif log is not None:
        await log.deliver(last, final=True)
    return job if last.status == STOPPED else last


async def wait_for_submission(
    client: RayClient,
    metadata: Mapping[str, str],
    installation: str | None = None,
    *,
    poll_interval: float,
    timeout: float | None,
) -> tuple[str, float | None]:
    """Wait until the cluster has a job with this metadata; return its id and the seconds that remain.

    :param installation: see :func:`find_job`.
    :param poll_interval: maximum seconds between two polls.
    :param timeout: seconds from now, None for no limit.
    :raises RayJobTimeout: when the time is up.
    :raises RayRequestError: when the cluster refuses a request, or is unavailable for longer than ``[ray]
        fault_budget``.
    """
    deadline = None if timeout is None else monotonic() + timeout
    pauses = intervals(poll_interval)
    while (job := await retrying(lambda: find_job(client, metadata, installation))) is None:
        left = _left(deadline)
        if left is not None and left <= 0:
            raise RayJobTimeout.from_message(f"No job with metadata {dict(metadata)} appeared in time")
        await asyncio.sleep(min(next(pauses), math.inf if left is None else left))
    return str(job.submission_id), _left(deadline)


async def find_job(
    client: RayClient, metadata: Mapping[str, str], installation: str | None = None
) -> JobDetails | None:
    """The newest job whose metadata contains all of these entries; None if there is none.

    :param installation: the Airflow that looks. Jobs of another one are passed over, unless ``metadata`` names it.
        None does not tell them apart.
    """
    newest = None
    for number, job in enumerate(await client.jobs.list(), start=1):
        is_newer = newest is None or (job.start_time_ms or 0) > (newest.start_time_ms or 0)
        if is_newer and job.submission_id and _matches(job, metadata, installation):
            newest = job
        if number % pacing.SEARCHED_AT_ONCE == 0:
            await asyncio.sleep(0)
    return newest


def _matches(job: JobDetails, wanted: Mapping[str, str], installation: str | None) -> bool:
    has = job.metadata or {}
    is_open_to_all = installation is None or INSTALLATION_KEY in wanted
    return wanted.items() <= has.items() and (is_open_to_all or has.get(INSTALLATION_KEY, installation) == installation)


async def stop_job(
    client: RayClient,
    submission_id: str,
    *,
    nonce: str | None = None,
    within: float | None = None,
    may_arrive: bool = False,
) -> JobDetails | None:
    """Stop a job and wait for it to end.

    :param nonce: stop the job only if it was submitted with this nonce; None stops any job with this id.
    :param within: seconds to wait for the end; default ``[ray] stop_timeout``. Ray sends SIGTERM and, three seconds
        later, SIGKILL.
    :param may_arrive: the submission may still be in flight, so wait for a job that is not there yet.
    :returns: the job as last seen, or None if the cluster definitely has no such job (with this nonce).
    :raises RayRequestError: when the cluster refuses a request, or does not say within that time whether it has the
        job.
    """
    deadline = monotonic() + (pacing.STOP_CONFIRM_SECONDS if within is None else within)
    is_ray = False
    while True:
        try:
            if nonce is not None and not has_nonce(await _look(client, submission_id, deadline), nonce):
                return None
            await retrying(lambda: client.jobs.stop(submission_id), max(deadline - monotonic(), 0))
            return await _ended(client, submission_id, deadline)
        except (RayNotFound, RayNotADashboard) as error:
            left = deadline - monotonic()
            is_absent = is_ray and isinstance(error, RayNotFound)
            if is_absent and (left <= 0 or not may_arrive):
                return None
            if left <= 0:
                raise
        # A single 404 proves nothing: an ingress that has briefly lost its backend gives the same answer.
        await asyncio.sleep(pacing.STOP_LOOK_SECONDS if may_arrive else min(pacing.SECOND_LOOK_SECONDS, left / 2))
        is_ray = await _answers(client, deadline)


async def _answers(client: RayClient, deadline: float) -> bool:
    """Whether what answers is a Ray dashboard."""
    try:
        await retrying(client.cluster.version, max(deadline - monotonic(), 0))
    except RayNotADashboard:
        return False
    return True


async def _ended(client: RayClient, submission_id: str, deadline: float) -> JobDetails:
    while True:
        job = await _look(client, submission_id, deadline)
        if is_terminal(job.status) or monotonic() > deadline:
            return job
        await asyncio.sleep(pacing.STOP_LOOK_SECONDS)


async def _look(client: RayClient, submission_id: str, deadline: float) -> JobDetails:
    return await retrying(lambda: client.jobs.get(submission_id), max(deadline - monotonic(), 0))
