"""How far a driver's log has been delivered: into the task log, and to the next trigger that goes on with the task."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_ray.task_log.drain import pipe

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

log = logging.getLogger(__name__)

# Airflow removes a task's XComs when an attempt starts, but not when it is resumed: each attempt shows the whole log.
KEY = "ray_log_bookmark"
SETTLE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class XComBookmark:
    """The position as an XCom of the task, ``{"submission_id", "bytes"}``.

    A fault of Airflow is logged and costs repeated lines, or the last ones if it lasts until the trigger ends.

    :param task_instance: the task of the trigger.
    """

    task_instance: RuntimeTaskInstanceProtocol

    @staticmethod
    def begin(context: Context) -> None:
        """Keep, before a task defers, that nothing is delivered: to ask for what is not there is logged as an error."""
        try:
            context["ti"].xcom_push(key=KEY, value={"submission_id": None, "bytes": 0})
        except Exception as error:
            log.warning("Airflow cannot keep that nothing of the log is shown yet: %s", error)

    async def find(self, submission_id: str) -> int:
        """Bytes of this job's log that have been delivered, 0 when nothing is known."""
        from airflow.sdk import conf
        from airflow.sdk.execution_time.xcom import XCom

        if conf.getboolean("logging", "remote_logging", fallback=False):
            # Airflow 3.3 does not upload what a trigger has logged that did not end: the log has to be shown anew.
            return 0
        try:
            kept = await pipe.during(XCom.aget_one(key=KEY, **self._where()))
        except Exception as error:
            log.warning("Airflow cannot say how far the log of Ray job %s is shown: %s", submission_id, error)
            return 0
        return int(kept["bytes"]) if kept and kept["submission_id"] == submission_id else 0

    async def put(self, submission_id: str, delivered: int) -> None:
        """Keep the number of bytes."""
        from airflow.sdk.execution_time.xcom import XCom

        try:
            value = {"submission_id": submission_id, "bytes": delivered}
            await pipe.during(XCom.aset(key=KEY, value=value, **self._where()))
        except Exception as error:
            log.warning("Airflow cannot keep how far the log of Ray job %s is shown: %s", submission_id, error)

    async def settle(self, at_most: int) -> bool:
        """Have Airflow take what this package has logged in this process up to now.

        The request is for the position, which the task has kept before it deferred.

        :param at_most: bytes that may be left.
        :returns: whether that is certain.
        """
        enough = pipe.written - at_most
        from airflow.sdk.execution_time.xcom import XCom

        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await pipe.drain(lambda: XCom.aget_one(key=KEY, **self._where()), at_most)
        except Exception as error:
            log.debug("Airflow does not say whether it has read the log: %s", error)
        return pipe.taken >= enough

    def _where(self) -> dict[str, Any]:
        ti = self.task_instance
        return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}
