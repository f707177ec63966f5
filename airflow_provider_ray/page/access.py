"""What a user may see and do on the page, by Airflow's own permissions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from airflow.configuration import conf
from fastapi import HTTPException, Request, status

from airflow_provider_ray.compat import database, server

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser


def permitted_connections(conn_ids: Collection[str], user: BaseUser, method: ResourceMethod) -> set[str]:
    """Those of some connections that a user may use in this way.

    :param conn_ids: their ids; they need not be in the database.
    :param user: the user.
    :param method: ``GET`` to read, ``PUT`` to edit.
    """
    return _permitted("connections", conn_ids, user, method)


def readable_dags(dag_ids: Collection[str], user: BaseUser) -> set[str]:
    """Those of some Dags that exist in this Airflow and the user may read."""
    return _permitted("dags", database.dags_that_exist(dag_ids), user, "GET")


def _permitted(
    kind: Literal["connections", "dags"], ids: Collection[str], user: BaseUser, method: ResourceMethod
) -> set[str]:
    permitted: set[str] = set()
    for team, members in _by_team(ids, server.teams_of(kind, ids)).items():
        permitted |= server.permitted(kind, members, user, method, team)
    return permitted


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
