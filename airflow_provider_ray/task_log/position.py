"""How far a driver log has been delivered, kept for the next trigger that resumes the task."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_ray.client import pacing
from airflow_provider_ray.task_log.drain import has_read

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_ray.compat.tasks import RuntimeTaskInstanceProtocol

log = logging.getLogger(__name__)

# Airflow removes a task's XComs when an attempt starts, but not when it is resumed, so each attempt shows the entire
# log.
KEY = "ray_log_position"


@dataclass(frozen=True, slots=True)
class XComPosition:
    """The position as an XCom of the task, ``{"submission_id", "bytes"}``.

    A fault of Airflow is logged. Lines may then be repeated, or the last ones lost if it lasts until the trigger ends.

    :param task_instance: the trigger's task.
    """

    task_instance: RuntimeTaskInstanceProtocol

    @staticmethod
    def begin(context: Context) -> None:
        """Write the first position before a task defers: a triggerer logs an error for a missing XCom (Airflow 3.3)."""
        try:
            context["ti"].xcom_push(key=KEY, value={"submission_id": None, "bytes": 0})
        except Exception as error:
            log.warning("Airflow cannot store the position in the driver log: %s", error)

    async def find(self, submission_id: str) -> int:
        """Bytes of this job's log that have been delivered, 0 when nothing is known."""
        from airflow.providers.common.compat.sdk import XCom, conf

        if conf.getboolean("logging", "remote_logging", fallback=False):
            # Airflow 3.3 uploads a trigger's log only when the trigger ends, so what an earlier one has shown is lost.
            return 0
        try:
            kept = await XCom.aget_one(key=KEY, **self._where())
        except Exception as error:
            log.warning("Airflow cannot tell how much of the log of Ray job %s was shown: %s", submission_id, error)
            return 0
        return int(kept["bytes"]) if kept and kept["submission_id"] == submission_id else 0

    async def put(self, submission_id: str, delivered: int) -> None:
        """Store the number of delivered bytes."""
        from airflow.providers.common.compat.sdk import XCom

        try:
            await XCom.aset(key=KEY, value={"submission_id": submission_id, "bytes": delivered}, **self._where())
        except Exception as error:
            log.warning("Airflow cannot store how much of the log of Ray job %s was shown: %s", submission_id, error)

    async def has_read(self, at_most: int) -> bool:
        """Wait up to 15 seconds until Airflow has read what this process has logged.

        :param at_most: bytes that may be left unread.
        :returns: whether it has.
        """
        return await has_read(at_most, pacing.LOG_DRAIN_SECONDS)

    def _where(self) -> dict[str, Any]:
        ti = self.task_instance
        return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}
