"""What the page finds out about a task instance in Airflow's own tables."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from airflow.models.base import Base
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.xcom import XComModel
from sqlalchemy import create_engine, insert
from sqlalchemy.orm import Session

from airflow_provider_ray.compat import database
from airflow_provider_ray.page.task import PICTURE_LIMIT_BYTES, PNG_SIGNATURE, Task, job_of, picture_of

WHO = {"dag_id": "dag", "run_id": "run", "task_id": "submit", "map_index": 3}
TASK = Task("dag", "run", "submit", 3)
PNG = PNG_SIGNATURE + b"and so on"

Store = Callable[..., None]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """Store a row of a model, by default of the task instance in question, in a database with just these tables."""
    engine = create_engine(f"sqlite:///{tmp_path}/airflow.db")
    models = (TaskStateStoreModel, RenderedTaskInstanceFields, XComModel)
    Base.metadata.create_all(engine, [Base.metadata.tables[model.__tablename__] for model in models])
    monkeypatch.setattr(database, "create_session", partial(Session, engine))

    def add(model: Any, **values: Any) -> None:
        run = {} if model is RenderedTaskInstanceFields else {"dag_run_id": 1}
        with engine.begin() as connection:
            connection.execute(insert(model), [{**WHO, **run, **values}])

    return add


def given(store: Store, **fields: Any) -> None:
    store(RenderedTaskInstanceFields, rendered_fields=fields)


def test_a_task_knows_its_job_from_what_it_remembers(store: Store) -> None:
    store(TaskStateStoreModel, key="ray_job", value='{"conn_id": "b", "submission_id": "second", "nonce": "n1"}')
    given(store, conn_id="a", submission_id="first")
    assert job_of(TASK) == ("b", "second", "n1")


@pytest.mark.parametrize("said", ["said", '"said"'])
def test_a_task_without_a_memory_knows_it_from_its_arguments_and_its_xcom(store: Store, said: str) -> None:
    given(store, conn_id="a", submission_id="first")
    assert job_of(TASK) == ("a", "first", None)
    store(XComModel, key="submission_id", value=said)
    assert job_of(TASK) == ("a", "said", None)


@pytest.mark.parametrize("value", [{"conn_id": "a", "submission_id": "x"}, '{"conn_id": "a", "submission_id": "x"}'])
def test_a_sensor_that_searched_knows_it_from_its_result(store: Store, value: Any) -> None:
    given(store, conn_id="a", metadata={"purpose": "test"})
    assert job_of(TASK) is None
    store(XComModel, key="return_value", value=value)
    assert job_of(TASK) == ("a", "x", None)


def test_the_result_of_a_task_without_a_cluster_is_not_read(store: Store) -> None:
    given(store, op_args=[])
    store(XComModel, key="return_value", value={"conn_id": "a", "submission_id": "x"})
    assert job_of(TASK) is None


@pytest.mark.parametrize("remembered", ["no JSON", "[1]", '{"conn_id": "a"}', '{"conn_id": 1, "submission_id": "x"}'])
def test_what_is_no_job_is_none(store: Store, remembered: str) -> None:
    store(TaskStateStoreModel, key="ray_job", value=remembered)
    assert job_of(TASK) is None


@pytest.mark.parametrize("other", [{"map_index": 4}, {"task_id": "other"}, {"run_id": "other"}, {"dag_id": "other"}])
def test_another_task_instance_is_another_matter(store: Store, other: dict[str, Any]) -> None:
    store(TaskStateStoreModel, key="ray_job", value='{"conn_id": "b", "submission_id": "second"}', **other)
    store(XComModel, key="ray_picture", value=base64.b64encode(PNG).decode(), **other)
    assert job_of(TASK) is None
    assert isinstance(picture_of(TASK), str)


@pytest.mark.parametrize("quotes", ["", '"'])
def test_a_picture(store: Store, quotes: str) -> None:
    store(XComModel, key="ray_picture", value=f"{quotes}{base64.b64encode(PNG).decode()}{quotes}")
    assert picture_of(TASK) == PNG


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"path": "s3://bucket"}, "no XCom 'ray_picture'"),
        ("not base64", "PNG"),
        (base64.b64encode(b"GIF89a").decode(), "PNG"),
        ("A" * (PICTURE_LIMIT_BYTES * 4 // 3 + 8), f"than {PICTURE_LIMIT_BYTES} bytes"),
    ],
)
def test_what_is_no_picture_is_explained(store: Store, value: Any, reason: str) -> None:
    store(XComModel, key="ray_picture", value=value)
    explanation = picture_of(TASK)
    assert isinstance(explanation, str)
    assert reason in explanation
