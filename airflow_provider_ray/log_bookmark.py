"""How far a driver's log has been delivered, kept where a trigger finds it that goes on with the task."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

log = logging.getLogger(__name__)

# Airflow removes a task's XComs when an attempt starts, but not when it is resumed: each attempt shows the whole log.
KEY = "ray_log_bookmark"


@dataclass(frozen=True, slots=True)
class XComBookmark:
    """The position as an XCom of the task, ``{"submission_id", "bytes"}``.

    A fault of Airflow is logged and costs repeated lines at most.

    :param task_instance: the task of the trigger.
    """

    task_instance: RuntimeTaskInstanceProtocol

    async def find(self, submission_id: str) -> int:
        """Bytes of this job's log that have been delivered, 0 when nothing is known."""
        from airflow.sdk import conf
        from airflow.sdk.execution_time.xcom import XCom

        if conf.getboolean("logging", "remote_logging", fallback=False):
            # Airflow 3.3 does not upload what a trigger has logged that did not end: the log has to be shown anew.
            return 0
        try:
            kept = await XCom.aget_one(key=KEY, **self._where())
        except Exception as error:
            log.warning("Airflow cannot say how far the log of Ray job %s is shown: %s", submission_id, error)
            return 0
        return int(kept["bytes"]) if kept and kept["submission_id"] == submission_id else 0

    async def put(self, submission_id: str, delivered: int) -> None:
        """Keep the number of bytes."""
        from airflow.sdk.execution_time.xcom import XCom

        try:
            await XCom.aset(key=KEY, value={"submission_id": submission_id, "bytes": delivered}, **self._where())
        except Exception as error:
            log.warning("Airflow cannot keep how far the log of Ray job %s is shown: %s", submission_id, error)

    def _where(self) -> dict[str, Any]:
        ti = self.task_instance
        return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}
