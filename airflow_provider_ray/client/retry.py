"""How requests to a cluster are repeated: what is transient costs time, not the work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from airflow_provider_ray.client.errors import RayError

T = TypeVar("T")

FAULT_BUDGET_SECONDS = 120.0


async def retrying(call: Callable[[], Awaitable[T]], budget: float = FAULT_BUDGET_SECONDS) -> T:
    """Repeat a call while it fails with a transient fault, at growing intervals.

    :param budget: seconds after which the last fault is raised.
    """
    try:
        # Nearly every call ends here, and setting up a retry costs more than the waits of a large cluster can spare.
        return await call()
    except RayError as error:
        if not error.transient:
            raise
        faults = [error]
    attempts = AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, RayError) and error.transient),
        stop=stop_after_delay(budget),
        wait=wait_exponential_jitter(max=10),
        reraise=True,
    )

    async def attempt() -> T:
        if faults:
            raise faults.pop()
        return await call()

    return await attempts(attempt)
