"""Links of a task, as Airflow asks for them at the end of a worker phase and for the UI."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.types import TaskInstanceKey

from airflow_provider_ray import links
from airflow_provider_ray.links import RayJobLink, RayPictureLink
from airflow_provider_ray.operators.job import RaySubmitJobOperator

KEY = TaskInstanceKey("dag", "submit", "run", 1, 3)
OPERATOR = RaySubmitJobOperator(task_id="submit", entrypoint="true")
URL = "https://ray.example/#/jobs/a"


@pytest.fixture
def xcoms(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[TaskInstanceKey, str], str]:
    """What tasks have stored, by task instance and key."""
    stored: dict[tuple[TaskInstanceKey, str], str] = {}

    class XCom:
        @staticmethod
        def get_value(*, ti_key: TaskInstanceKey, key: str) -> Any:
            return stored.get((ti_key, key))

        @staticmethod
        def set(*, key: str, value: str, **where: Any) -> None:
            stored[TaskInstanceKey(**where, try_number=KEY.try_number), key] = value

    monkeypatch.setattr(links, "BaseXCom", XCom)
    return stored


def test_the_job_link_is_what_the_task_has_stored(xcoms: dict[tuple[TaskInstanceKey, str], str]) -> None:
    xcoms[KEY, "_link_RayJobLink"] = URL
    xcoms[KEY._replace(map_index=4), "_link_RayJobLink"] = "https://ray.example/#/jobs/b"
    assert RayJobLink().get_link(OPERATOR, ti_key=KEY) == URL


@pytest.mark.usefixtures("xcoms")
def test_a_task_without_a_job_has_no_job_link() -> None:
    assert RayJobLink().get_link(OPERATOR, ti_key=KEY) == ""


def test_a_backend_that_stores_values_elsewhere_does_not_get_the_link(
    xcoms: dict[tuple[TaskInstanceKey, str], str],
) -> None:
    class Elsewhere:
        dag_id, run_id, task_id, map_index = KEY.dag_id, KEY.run_id, KEY.task_id, KEY.map_index

        def xcom_push(self, **_: Any) -> None:
            raise AssertionError("a backend would get this")

    RayJobLink().store(Elsewhere(), URL)
    assert RayJobLink().get_link(OPERATOR, ti_key=KEY) == URL


def test_the_ui_finds_a_link_by_its_name() -> None:
    assert [link.name for link in OPERATOR.operator_extra_links] == ["Ray job"]
    assert RayPictureLink().name == "Ray plots"
