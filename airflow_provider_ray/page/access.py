"""What a user may see and do on the page, by Airflow's own permissions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.configuration import conf
from airflow.models import Connection, DagModel
from airflow.utils.session import create_session
from fastapi import HTTPException, Request, status
from sqlalchemy import select

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser


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


def readable_dags(dag_ids: Collection[str], user: BaseUser) -> set[str]:
    """Those of some Dags that exist in this Airflow and the user may read."""
    with create_session() as session:
        known = set(session.scalars(select(DagModel.dag_id).where(DagModel.dag_id.in_(dag_ids))))
    readable: set[str] = set()
    for team, ids in _by_team(known, DagModel.get_dag_id_to_team_name_mapping(list(known))).items():
        readable |= get_auth_manager().filter_authorized_dag_ids(dag_ids=ids, user=user, team_name=team)
    return readable


def _by_team(names: Collection[str], teams: Mapping[str, str | None]) -> Mapping[str | None, set[str]]:
    grouped: dict[str | None, set[str]] = defaultdict(set)
    for name in names:
        grouped[teams.get(name)].add(name)
    return grouped


def requires_own_page(request: Request) -> None:
    """Refuse requests that a page of another origin could send with the user's cookie.

    :raises HTTPException: 403 when the request does not come from this Airflow, 415 when it is not JSON.
    """
    if not _is_own(request):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "This request must come from a page of this Airflow")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, "The request body must be application/json")


def _is_own(request: Request) -> bool:
    """Whether the browser says so: in Sec-Fetch-Site over HTTPS and on localhost, in Origin always."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    base = urlsplit(conf.get("api", "base_url", fallback=""))
    hosts = ((request.url.scheme, request.headers.get("host")), (base.scheme, base.netloc))
    return request.headers.get("origin") in {f"{scheme}://{host}" for scheme, host in hosts if host}
