"""Which errors a retry can help with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryAction, RetryDecision, RetryPolicy

from airflow_provider_ray.client.durations import seconds

if TYPE_CHECKING:
    from airflow.sdk import Context


class RayRetryPolicy(RetryPolicy):
    """Retry infrastructure failures, and fail at once if another attempt would end the same way.

    For ``retry_policy=`` of operators and sensors, or in a Dag's ``default_args``. Errors that do not come from this
    package follow the task's own ``retries`` and ``retry_delay``. No policy can exceed ``retries``.

    :param delay: time before the first retry, in seconds or as a ``timedelta``; default 10 seconds. Each further retry
        waits twice as long as the one before. None keeps to the task's own ``retry_delay``.
    :param max_delay: longest delay, in seconds or as a ``timedelta``; default 600 seconds.
    :param cluster_faults: False also fails at once when the cluster is unavailable or has lost the job, for work that
        other clusters can take over.
    :raises RayConfigError: when a delay is not a duration.
    """

    def __init__(
        self, delay: float | timedelta | None = 10, max_delay: float | timedelta = 600, cluster_faults: bool = True
    ) -> None:
        self.delay = None if delay is None else seconds("delay", delay, zero=True)
        self.max_delay = seconds("max_delay", max_delay, zero=True)
        self.cluster_faults = cluster_faults

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide from the error alone."""
        from airflow_provider_ray.client.errors import RayClusterUnavailable, RayError, RayJobLost

        if not isinstance(exception, RayError):
            return RetryDecision.default()
        kind = type(exception).__name__
        if not exception.retry_helps:
            return RetryDecision.fail(f"{kind}: another attempt would end the same way")
        if not self.cluster_faults and isinstance(exception, RayClusterUnavailable | RayJobLost):
            return RetryDecision.fail(f"{kind}: left to other clusters")
        if self.delay is None:
            return RetryDecision.default()
        # The exponent is bounded, so that no number of tries overflows.
        delay = min(self.delay * 2 ** min(max(try_number - 1, 0), 32), self.max_delay)
        return RetryDecision.retry(timedelta(seconds=delay), f"{kind}: not the job's fault")

    def serialize(self) -> dict[str, Any]:
        """Arguments for :meth:`deserialize`."""
        return {"delay": self.delay, "max_delay": self.max_delay, "cluster_faults": self.cluster_faults}

    @classmethod
    def deserialize(cls, data: Mapping[str, Any]) -> RayRetryPolicy:
        """The policy that was serialized."""
        return cls(**data)


def is_retried_after(error: Exception, policy: RetryPolicy | None, context: Context) -> bool:
    """Whether Airflow makes another attempt at a task that fails with this error.

    :param policy: the task's own policy, if it has one.
    """
    ti = context["ti"]
    if ti.try_number > ti.max_tries or policy is None:
        return ti.try_number <= ti.max_tries
    return policy.evaluate(error, ti.try_number, ti.max_tries, context).action != RetryAction.FAIL
