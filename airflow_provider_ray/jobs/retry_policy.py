"""What a retry can help against."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryAction, RetryDecision, RetryPolicy

from airflow_provider_ray.jobs.definition import seconds

if TYPE_CHECKING:
    from airflow.sdk import Context


class RayRetryPolicy(RetryPolicy):
    """Retry what infrastructure did, with growing delays; fail at once where another try would end the same.

    For ``retry_policy=`` of operators and sensors, or of a Dag's ``default_args``. Errors that do not come from this
    package get the task's own ``retries`` and ``retry_delay``. No policy can go beyond ``retries``.

    :param delay: seconds before the first retry, default 10; each further one waits twice as long.
    :param max_delay: longest delay in seconds, default 600.
    :param cluster_faults: False fails at once, too, when the cluster is unavailable or has lost the job: for work that
        others can do.
    """

    def __init__(
        self, delay: float | timedelta = 10, max_delay: float | timedelta = 600, cluster_faults: bool = True
    ) -> None:
        self.delay: float = seconds(delay)
        self.max_delay: float = seconds(max_delay)
        self.cluster_faults = cluster_faults

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide by the error alone."""
        from airflow_provider_ray.client.errors import RayClusterUnavailable, RayError, RayJobLost

        if not isinstance(exception, RayError):
            return RetryDecision.default()
        kind = type(exception).__name__
        if not exception.retry_helps:
            return RetryDecision.fail(f"{kind}: another try would end the same")
        if not self.cluster_faults and isinstance(exception, RayClusterUnavailable | RayJobLost):
            return RetryDecision.fail(f"{kind}: left to others")
        # The exponent is bounded, so that no number of tries overflows.
        delay = min(self.delay * 2 ** min(max(try_number - 1, 0), 32), self.max_delay)
        return RetryDecision.retry(timedelta(seconds=delay), f"{kind}: not the fault of the job")

    def serialize(self) -> dict[str, Any]:
        """Arguments for :meth:`deserialize`."""
        return {"delay": self.delay, "max_delay": self.max_delay, "cluster_faults": self.cluster_faults}

    @classmethod
    def deserialize(cls, data: Mapping[str, Any]) -> RayRetryPolicy:
        """The policy that was serialized."""
        return cls(**data)


def is_retried_after(error: Exception, policy: RetryPolicy | None, context: Context) -> bool:
    """Whether Airflow makes another attempt of a task that fails with this error.

    :param policy: the task's own, if it has one.
    """
    ti = context["ti"]
    if ti.try_number > ti.max_tries or policy is None:
        return ti.try_number <= ti.max_tries
    return policy.evaluate(error, ti.try_number, ti.max_tries, context).action != RetryAction.FAIL


# As Dags call it.
ray_retry_policy = RayRetryPolicy
