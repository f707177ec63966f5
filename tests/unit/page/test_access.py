"""Whom Airflow's auth manager is asked about, by team; tests/browser has a real one answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from airflow.models import Connection, DagModel
from airflow.models.base import Base
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from airflow_provider_ray.compat import database, server
from airflow_provider_ray.page.access import permitted_connections, readable_dags

USER: Any = object()


class AuthManager:
    """Permits what is in ``allowed``, and keeps the questions."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = set(allowed)
        self.asked: list[tuple[Any, ...]] = []

    def filter_authorized_connections(self, *, conn_ids: set[str], user: Any, method: str, team_name: Any) -> set[str]:
        assert user is USER
        self.asked.append((method, team_name, conn_ids))
        return conn_ids & self.allowed

    def filter_authorized_dag_ids(self, *, dag_ids: set[str], user: Any, method: str, team_name: Any) -> set[str]:
        assert user is USER
        self.asked.append((method, team_name, dag_ids))
        return dag_ids & self.allowed


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> AuthManager:
    made = AuthManager("a", "c")
    monkeypatch.setattr(server, "get_auth_manager", lambda: made)
    return made


def teams(monkeypatch: pytest.MonkeyPatch, model: Any, method: str, known: dict[str, str | None]) -> None:
    monkeypatch.setattr(model, method, lambda ids: {name: known[name] for name in ids if name in known})


def test_connections_are_asked_for_by_team(manager: AuthManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is not in the database, but in the environment, has no team."""
    teams(monkeypatch, Connection, "get_conn_id_to_team_name_mapping", {"a": "blue", "b": "blue"})
    assert permitted_connections(["a", "b", "c"], USER, "PUT") == {"a", "c"}
    assert manager.asked == [("PUT", "blue", {"a", "b"}), ("PUT", None, {"c"})]


def test_only_dags_that_exist_are_asked_for(
    manager: AuthManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The ids come from the metadata of jobs, which may belong to another Airflow."""
    engine = create_engine(f"sqlite:///{tmp_path}/airflow.db")
    Base.metadata.create_all(engine, [Base.metadata.tables[DagModel.__tablename__]])
    dag: Callable[..., DagModel] = DagModel
    with Session(engine) as session, session.begin():
        session.add_all(dag(dag_id=name, bundle_name="dags", timetable_type="none") for name in "abd")
    monkeypatch.setattr(database, "create_session", partial(Session, engine))
    teams(monkeypatch, DagModel, "get_dag_id_to_team_name_mapping", {"a": None, "b": "blue"})
    assert readable_dags(["a", "b", "c"], USER) == {"a"}
    assert sorted(manager.asked, key=str) == [("GET", "blue", {"b"}), ("GET", None, {"a"})]
