"""Undocumented parts of Airflow that run in the API server, or where the metadata database can be reached.

What can change with Airflow 3.4 is named with each part. Everything here is imported by the page and the command line
only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

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
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser as BaseUser  # noqa: PLC0414

__all__ = [
    "AccessView",
    "DagAccessEntity",
    "GetUserDep",
    "action_logging",
    "get_user",
    "permitted_connections",
    "permitted_dags",
    "requires_access_connection",
    "requires_access_dag",
    "requires_access_view",
]


# The auth manager filters for Airflow's own routes; its methods, and teams, are not documented (3.3).
# Delete when a plugin can ask Airflow what a user may do.


def permitted_connections(conn_ids: Collection[str], user: BaseUser, method: ResourceMethod) -> set[str]:
    """Those of some connections that a user may use in this way.

    :param conn_ids: their ids; they need not be in the database.
    :param user: the user.
    :param method: ``GET`` to read, ``PUT`` to edit.
    """
    permitted: set[str] = set()
    for team, ids in _by_team(conn_ids, Connection.get_conn_id_to_team_name_mapping(list(conn_ids))).items():
        permitted |= get_auth_manager().filter_authorized_connections(
            conn_ids=ids, user=user, method=method, team_name=team
        )
    return permitted


def permitted_dags(dag_ids: Collection[str], user: BaseUser) -> set[str]:
    """Those of some Dags that a user may read; an administrator may read even those that do not exist."""
    permitted: set[str] = set()
    for team, ids in _by_team(dag_ids, DagModel.get_dag_id_to_team_name_mapping(list(dag_ids))).items():
        permitted |= get_auth_manager().filter_authorized_dag_ids(dag_ids=ids, user=user, method="GET", team_name=team)
    return permitted


def _by_team(names: Collection[str], teams: Mapping[str, str | None]) -> Mapping[str | None, set[str]]:
    """The auth manager answers for one team at a time, None for no team."""
    grouped: dict[str | None, set[str]] = defaultdict(set)
    for name in names:
        grouped[teams.get(name)].add(name)
    return grouped
