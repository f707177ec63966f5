"""Links from a task to Ray's dashboard and to the picture that the task has drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import XCom
from airflow.sdk import BaseOperatorLink, BaseXCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


# XCom key of a base64-encoded PNG of at most 8 MiB, which the plugin serves as a picture.
PICTURE_KEY = "ray_picture"


class RayJobLink(BaseOperatorLink):
    """Link to the job's page in Ray's dashboard.

    The operator writes the XCom as soon as the submission id is known, so the link works while the job runs. Airflow
    requests the link again after each worker phase and stores the answer in the same XCom, so this returns the stored
    value. The API server reads it without asking the XCom backend (3.3), so it passes by a backend that stores values
    elsewhere, in both directions.
    """

    @property
    def name(self) -> str:
        """Text of the button."""
        return "Ray job"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address, or nothing while there is none."""
        key: Any = ti_key
        return BaseXCom.get_value(ti_key=key, key=self.xcom_key) or ""

    def store(self, ti: Any, url: str) -> None:
        """Show the address from now on.

        :param ti: the task instance that has the job.
        """
        if XCom is BaseXCom:
            ti.xcom_push(key=self.xcom_key, value=url)
            return
        where = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}
        BaseXCom.set(key=self.xcom_key, value=url, **where)


class RayPictureLink(BaseOperatorLink):
    """Link to the picture that a task pushed as the XCom ``ray_picture``; see :mod:`airflow_provider_ray.page`.

    The link is relative to the root of the UI, so a worker does not need to know the UI's address.
    """

    @property
    def name(self) -> str:
        """Text of the button."""
        return "Ray plots"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address of the picture, whether or not there is one."""
        dag_id, run_id, task_id = (quote(part, safe="") for part in (ti_key.dag_id, ti_key.run_id, ti_key.task_id))
        return f"ray/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{ti_key.map_index}/picture"
