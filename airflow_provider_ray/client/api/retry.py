"""How requests to a cluster are repeated: a transient fault costs time, not the work."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential, wait_random

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.errors import RayAuthError, RayError

T = TypeVar("T")

log = logging.getLogger(__name__)


async def retrying(
    call: Callable[[], Awaitable[T]],
    budget: float | None = None,
    *,
    passing: tuple[type[RayError], ...] = (),
) -> T:
    """Repeat a call while it fails with a transient fault, at growing intervals.

    The log says that it is repeated and for how long, and what came of it, unless the budget is a few seconds.

    :param budget: seconds from the first fault on, after which the last one is raised; default: :func:`patience`.
    :param passing: errors that count as transient here although they are not in general.
    """
    try:
        # Nearly every call ends here, and with thousands of waits, setting up a retry for each call costs too much.
        return await call()
    except RayError as error:
        if not _passes(error, passing):
            raise
        faults = [error]
    told = patience(faults[0]) if budget is None else budget
    level = logging.WARNING if told >= pacing.LEAST_TOLD_SECONDS else logging.DEBUG
    log.log(level, "%s. Retrying for up to %.0f s", faults[0], told)
    began = monotonic()
    attempts = AsyncRetrying(
        retry=retry_if_exception(lambda error: _passes(error, passing)),
        stop=lambda state: _has_spent(state, budget),
        wait=wait_exponential(pacing.FIRST_PAUSE_SECONDS, max=pacing.LAST_PAUSE_SECONDS)
        + wait_random(0, pacing.FIRST_PAUSE_SECONDS),
        reraise=True,
    )

    async def attempt() -> T:
        if faults:
            raise faults.pop()
        return await call()

    try:
        answer: T = await attempts(attempt)
    except RayError as error:
        if _passes(error, passing):
            log.log(
                level,
                "Giving up after %d attempts in %.0f s",
                attempts.statistics["attempt_number"],
                monotonic() - began,
            )
        raise
    log.log(min(level, logging.INFO), "The cluster answers again, after %.0f s", monotonic() - began)
    return answer


def patience(error: BaseException) -> float:
    """Seconds for which a transient fault is retried: ``[ray] fault_budget``, or ``[ray] auth_budget``."""
    return pacing.AUTH_BUDGET_SECONDS if isinstance(error, RayAuthError) else pacing.FAULT_BUDGET_SECONDS


def _has_spent(state: RetryCallState, budget: float | None) -> bool:
    error = state.outcome.exception() if state.outcome else None
    if budget is None:
        budget = patience(error) if error else 0.0
    return (state.seconds_since_start or 0.0) >= budget


def _passes(error: BaseException, passing: tuple[type[RayError], ...]) -> bool:
    return isinstance(error, RayError) and (error.transient or isinstance(error, passing))
