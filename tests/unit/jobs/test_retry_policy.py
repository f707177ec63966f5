"""Which errors are worth another attempt."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import RetryAction

from airflow_provider_ray.client import errors
from airflow_provider_ray.client.api.models import JobDetails
from airflow_provider_ray.jobs.retry_policy import RayRetryPolicy


def failed(error_type: str | None, message: str | None = None) -> errors.RayJobFailed:
    job = JobDetails(submission_id="j1", status="FAILED", error_type=error_type, message=message)
    return errors.RayJobFailed("ray_lab", job, "failed")


FORGOTTEN = "runtime_env setup failed: Failed to download runtime_env file package gcs://_ray_pkg_1.zip from the GCS"
# What Ray 2.60 says about conda="missing.yml", and about its own failures.
REJECTED = """Failed to start supervisor actor j1: 'Can't find conda YAML file missing.yml.'. Full traceback:
Traceback (most recent call last):
  File "ray/_private/runtime_env/validation.py", line 137, in parse_and_validate_conda
    raise ValueError(f"Can't find conda YAML file {file_path}.")
ValueError: Can't find conda YAML file missing.yml.
"""
NOT_STARTED = """Failed to start supervisor actor j1: 'x'. Full traceback:
Traceback (most recent call last):
ray.exceptions.RaySystemError: System error: Broken pipe
"""


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (errors.RayClusterUnavailable("GET http://ray", "no answer"), RetryAction.RETRY),
        (errors.RayJobLost.from_message("lost"), RetryAction.RETRY),
        (errors.RayJobStopping.from_message("not stopped"), RetryAction.RETRY),
        (failed("JOB_SUPERVISOR_ACTOR_DIED"), RetryAction.RETRY),
        (failed("JOB_SUPERVISOR_ACTOR_START_FAILURE", NOT_STARTED), RetryAction.RETRY),
        (failed("JOB_SUPERVISOR_ACTOR_START_FAILURE", "Unexpected error occurred: ..."), RetryAction.RETRY),
        (failed("JOB_SUPERVISOR_ACTOR_START_FAILURE", REJECTED), RetryAction.FAIL),
        (errors.RayServeNotReady("not yet"), RetryAction.RETRY),
        (failed("JOB_ENTRYPOINT_COMMAND_ERROR"), RetryAction.FAIL),
        (failed("RUNTIME_ENV_SETUP_FAILURE"), RetryAction.FAIL),
        (failed("RUNTIME_ENV_SETUP_FAILURE", FORGOTTEN), RetryAction.RETRY),
        (failed(None), RetryAction.FAIL),
        (errors.RayJobStopped.from_message("stopped"), RetryAction.FAIL),
        (errors.RayJobInterrupted.from_message("worker ended"), RetryAction.RETRY),
        (errors.RayTriggerError("no connection to Airflow"), RetryAction.RETRY),
        (errors.RayJobTimeout.from_message("late"), RetryAction.FAIL),
        (errors.RayAuthError("GET http://ray", "403", 403), RetryAction.FAIL),
        (errors.RayConfigError("entrypoint", "nothing", "a command"), RetryAction.FAIL),
        (ValueError("of the Dag's own"), RetryAction.DEFAULT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
def test_infrastructure_is_retried_and_user_code_is_not(error: Exception, action: RetryAction) -> None:
    assert RayRetryPolicy().evaluate(error, 1, 3).action == action


@pytest.mark.parametrize(("try_number", "seconds"), [(1, 5), (2, 10), (4, 40), (5, 60), (10**6, 60)])
def test_delays_grow_up_to_the_longest(try_number: int, seconds: float) -> None:
    policy: Any = RayRetryPolicy(delay=timedelta(seconds=5), max_delay=60)
    decision = policy.evaluate(errors.RayJobLost.from_message("lost"), try_number, 10**7)
    assert decision.retry_delay == timedelta(seconds=seconds)


@pytest.mark.parametrize("arguments", [{"delay": "soon"}, {"delay": -1}, {"max_delay": timedelta(seconds=-1)}], ids=str)
def test_a_delay_that_is_none_is_named_in_the_dag_file(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(errors.RayConfigError, match=f"^{name}: got .*; expected a number of seconds of 0 or more"):
        RayRetryPolicy(**arguments)


def test_survives_serialization() -> None:
    policy = RayRetryPolicy(delay=7, max_delay=70)
    assert vars(RayRetryPolicy.deserialize(policy.serialize())) == vars(policy)
