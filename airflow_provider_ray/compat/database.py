"""Undocumented parts of Airflow in processes that can reach the metadata database: API server and command line."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from airflow.models import Connection, DagModel
from airflow.utils.session import create_session
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger(__name__)


def dags_that_exist(dag_ids: Collection[str]) -> set[str]:
    """Those of some Dags that this Airflow has; the auth manager permits an administrator everything, even what is not.

    Delete when a plugin can ask Airflow's API from within the API server.
    """
    with create_session() as session:
        return set(session.scalars(select(DagModel.dag_id).where(DagModel.dag_id.in_(dag_ids))))


def connections_of_type(conn_type: str) -> list[str]:
    """Ids of the connections of a type in the metadata database.

    Airflow has no documented way to list connections outside of its REST API (3.3). Delete when it does.

    :raises sqlalchemy.exc.SQLAlchemyError: when the database cannot be read.
    """
    with create_session() as session:
        return list(session.scalars(select(Connection.conn_id).where(Connection.conn_type == conn_type)))


# The models below are not documented. Airflow 3.4 keeps XComs and rendered fields for each attempt, in other tables:
# what can no longer be read is unknown, with a message in the log. Delete when a plugin can ask Airflow's API from
# within the API server.


def task_state(key: str, **task: Any) -> Any:
    """An entry of a task instance's state store; None if there is none."""
    return _column("airflow.models.task_state_store.TaskStateStoreModel", "value", task, key)


def rendered_fields(**task: Any) -> Any:
    """A task instance's rendered template fields; None if there are none."""
    return _column("airflow.models.renderedtifields.RenderedTaskInstanceFields", "rendered_fields", task)


def stored_xcom(key: str, **task: Any) -> Any:
    """An XCom as the database has it: a backend could read files, and values could be turned into any object."""
    return _column("airflow.models.xcom.XComModel", "value", task, key)


def _column(path: str, column: str, task: Mapping[str, Any], key: str | None = None) -> Any:
    wanted = task if key is None else {**task, "key": key}
    try:
        model = _model(path)
        rows = select(getattr(model, column)).where(*(getattr(model, name) == value for name, value in wanted.items()))
        with create_session() as session:
            return session.scalar(rows)
    except (ImportError, AttributeError, SQLAlchemyError) as error:
        _say_once(path, f"{type(error).__name__}: {error}")
        return None


def _model(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


@cache
def _say_once(path: str, reason: str) -> None:
    log.warning("Ray jobs and pictures of tasks may be missing: Airflow's %s cannot be read (%s)", path, reason)
