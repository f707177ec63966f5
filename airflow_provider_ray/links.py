"""Links from a task to Ray's dashboard, and to the picture that it has drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


# XCom with a PNG in base64, at most 8 MiB of it, which the plugin serves as a picture.
PICTURE_KEY = "ray_picture"


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


class RayPictureLink(BaseOperatorLink):
    """The picture that a task has left in its XCom ``ray_picture``; see :mod:`airflow_provider_ray.page`.

    Relative to the root of the UI, wherever that is: a worker need not know the address.
    """

    @property
    def name(self) -> str:
        return "Ray plots"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        dag_id, run_id, task_id = (quote(part, safe="") for part in (ti_key.dag_id, ti_key.run_id, ti_key.task_id))
        return f"ray/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{ti_key.map_index}/picture"
