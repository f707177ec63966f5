"""What the API server reads from Airflow's tables, and what it does where they have changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.models import task_state_store
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from airflow_provider_ray.compat import database

WHO = {"dag_id": "dag", "run_id": "run", "task_id": "submit", "map_index": 3}


@pytest.fixture(autouse=True)
def empty_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A database without Airflow's tables."""
    engine = create_engine(f"sqlite:///{tmp_path}/airflow.db")
    monkeypatch.setattr(database, "create_session", lambda: Session(engine))
    database._say_once.cache_clear()
    yield
    engine.dispose()


def test_a_table_that_is_gone_is_unknown_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    assert [database.stored_xcom("key", **WHO) for _ in range(2)] == [None, None]
    (record,) = caplog.records
    assert "airflow.models.xcom.XComModel cannot be read (OperationalError" in record.message


def test_a_model_that_is_gone_is_unknown_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(task_state_store, "TaskStateStoreModel")
    assert [database.task_state("ray_job", **WHO) for _ in range(2)] == [None, None]
    (record,) = caplog.records
    assert "TaskStateStoreModel cannot be read (AttributeError" in record.message


def test_a_column_that_is_gone_is_unknown(caplog: pytest.LogCaptureFixture) -> None:
    assert database.rendered_fields(**WHO, iteration=1) is None
    assert "iteration" in caplog.text
