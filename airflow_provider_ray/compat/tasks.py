"""Undocumented parts of Airflow that run with a task on its worker."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR

# Encrypts with [core] fernet_key, as Airflow does with connections. Delete when Airflow encrypts the arguments of
# triggers: 3.3 stores them in clear text, although the column is called encrypted_kwargs.
from airflow.sdk.crypto import get_fernet

if TYPE_CHECKING:
    from typing import NoReturn

    from airflow.sdk import BaseSensorOperator, Context

    # Not documented, and there for annotations only (3.3). Delete when airflow.sdk exports them.
    from airflow.sdk.types import Logger as Logger  # noqa: PLC0414
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as RuntimeTaskInstanceProtocol  # noqa: PLC0414
    from jinja2 import Environment

__all__ = [
    "RedactsRenderedFields",
    "fail_sensor",
    "get_fernet",
    "has_checked_before",
    "is_trigger_failure",
    "task_state",
]


def is_trigger_failure(next_method: str) -> bool:
    """Whether Airflow resumes a task because its trigger raised an error or exited without an event.

    Airflow then raises ``TaskDeferralError`` without calling the operator, so an operator overrides
    ``resume_execution`` to learn about it. Delete when operators can register a method for this case.
    """
    return next_method == TRIGGER_FAIL_REPR


def has_checked_before(context: Context) -> bool:
    """Whether a sensor in reschedule mode has waited already, in processes before this one.

    The key is in the context, but not in its documented type (Airflow 3.3). Delete when it is.
    """
    counts: Any = context
    return bool(counts.get("task_reschedule_count"))


class RedactsRenderedFields(BaseOperator):
    """An operator that can change its rendered fields before Airflow stores and shows them.

    A mapped operator renders through ``_do_render_template_fields`` and never calls the public
    ``render_template_fields`` of the operator that it unmaps (Airflow 3.3). Delete when it does.
    """

    @abstractmethod
    def redact_rendered_fields(self) -> None:
        """Change the fields in place, once all of them are rendered."""

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Environment, seen_oids: set[int]
    ) -> None:
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        if parent is self:
            self.redact_rendered_fields()


def task_state(states: dict[str, dict[str, str]], run_id: str, task_id: str, map_index: int) -> str | None:
    """One task's state in the answer to ``get_task_states``.

    The keys, ``task_id`` or ``task_id_<map_index>``, are a convention of the execution API that the Kubernetes provider
    relies on as well (Airflow 3.3). Delete when the answer is typed.
    """
    key = task_id if map_index < 0 else f"{task_id}_{map_index}"
    return (states.get(run_id) or {}).get(key)


def fail_sensor(sensor: BaseSensorOperator, error: Exception, *, timed_out: bool) -> NoReturn:
    """End a sensor with an error of this package.

    Airflow applies ``soft_fail``, and after a deferral also ``never_fail``, only to its own exceptions (3.3). Delete
    when it applies them to all.

    :param timed_out: the sensor's time was up, which Airflow does not retry.
    :raises AirflowSkipException: with ``soft_fail`` or ``never_fail``.
    :raises AirflowSensorTimeout: when the time was up.
    """
    from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException

    if sensor.soft_fail or sensor.never_fail:
        raise AirflowSkipException(str(error)) from error
    if timed_out:
        raise AirflowSensorTimeout(str(error)) from error
    raise error
