"""Links from a task to Ray's dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class RayJobLink(BaseOperatorLink):
    """The job's page in the dashboard.

    The operator writes the XCom when the id is known, so that the link is there while the job runs. Airflow asks for
    the link again after each worker phase and stores the answer, which is therefore the stored one.
    """

    @property
    def name(self) -> str:
        return "Ray job"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""
