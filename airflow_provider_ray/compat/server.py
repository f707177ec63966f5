"""Undocumented parts of Airflow that run in the API server, or where the metadata database can be reached.

What can change with Airflow 3.4 is named with each part. Everything here is imported by the page and the command line
only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

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

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser

__all__ = [
    "AccessView",
    "DagAccessEntity",
    "GetUserDep",
    "action_logging",
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
