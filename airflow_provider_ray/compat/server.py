"""Undocumented parts of Airflow that run in the API server, or where the metadata database can be reached.

What can change with Airflow 3.4 is named with each part. Everything here is imported by the page and the command line
only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

# Airflow documents plugins with FastAPI apps and leaves it to them to protect their routes, but not with what (3.3).
# Delete when the dependencies of its own routes, or others for plugins, are documented.
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    get_user,
    requires_access_connection,
    requires_access_dag,
    requires_access_view,
)
from airflow.api_fastapi.logging.decorators import action_logging
from airflow.models import Connection, DagModel
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser

__all__ = [
    "AccessView",
    "DagAccessEntity",
    "GetUserDep",
    "action_logging",
    "connections_of_type",
    "dags_that_exist",
    "get_user",
    "permitted",
    "requires_access_connection",
    "requires_access_dag",
    "requires_access_view",
    "teams_of",
]


def permitted(
    kind: Literal["connections", "dags"], ids: set[str], user: BaseUser, method: ResourceMethod, team: str | None
) -> set[str]:
    """Those of some connections or Dags that a user may use.

    The auth manager filters for Airflow's own routes; its methods are not part of the documented interface (3.3).

    :param team: the team that all of them belong to, None for no team.
    """
    manager = get_auth_manager()
    if kind == "connections":
        return manager.filter_authorized_connections(conn_ids=ids, user=user, method=method, team_name=team)
    return manager.filter_authorized_dag_ids(dag_ids=ids, user=user, method=method, team_name=team)


def teams_of(kind: Literal["connections", "dags"], ids: Collection[str]) -> Mapping[str, str | None]:
    """The team of each connection or Dag, in an Airflow with several teams (3.3)."""
    if kind == "connections":
        return Connection.get_conn_id_to_team_name_mapping(list(ids))
    return DagModel.get_dag_id_to_team_name_mapping(list(ids))


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


# The models below are not documented. Airflow 3.4 keeps XComs and rendered fields for each attempt, in other tables.
# Delete when a plugin can ask Airflow's API from within the API server.


def task_state(key: str, **task: Any) -> Any:
    """An entry of a task instance's state store; None if there is none."""
    return _column(TaskStateStoreModel, TaskStateStoreModel.value, task, key)


def rendered_fields(**task: Any) -> Any:
    """A task instance's rendered template fields; None if there are none."""
    return _column(RenderedTaskInstanceFields, RenderedTaskInstanceFields.rendered_fields, task)


def stored_xcom(key: str, **task: Any) -> Any:
    """An XCom as the database has it: a backend could read files, and values could be turned into any object."""
    return _column(XComModel, XComModel.value, task, key)


def _column(model: Any, column: Any, task: Mapping[str, Any], key: str | None = None) -> Any:
    rows = select(column).where(*(getattr(model, name) == value for name, value in task.items()))
    with create_session() as session:
        return session.scalar(rows if key is None else rows.where(model.key == key))
