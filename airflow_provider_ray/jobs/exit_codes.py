"""Exit codes of the driver that skip the task or fail it without a retry."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

if TYPE_CHECKING:
    from airflow_provider_ray.client.errors import RayJobFailed


def parse(field: str, given: int | Collection[int]) -> frozenset[int]:
    """One code, or several.

    :param field: name of the argument, for the error.
    :raises RayConfigError: when one is not an integer.
    """
    from airflow_provider_ray.client.errors import RayConfigError

    codes = list(given) if isinstance(given, Collection) and not isinstance(given, str) else [given]
    if wrong := [code for code in codes if not isinstance(code, int)]:
        raise RayConfigError(field, repr(wrong), "an exit code or a list of them, as integers")
    return frozenset(codes)


def raise_for(error: RayJobFailed, *, skip: Collection[int], fail: Collection[int]) -> None:
    """Tell Airflow what the exit code of a failed job means; do nothing if it is none of these.

    :param skip: codes that skip the task.
    :param fail: codes that fail it without a retry.
    :raises AirflowSkipException: for one of ``skip``.
    :raises AirflowFailException: for one of ``fail``.
    """
    code = error.job.driver_exit_code if error.job else None
    if code in skip:
        raise AirflowSkipException(str(error)) from error
    if code in fail:
        raise AirflowFailException(str(error)) from error
