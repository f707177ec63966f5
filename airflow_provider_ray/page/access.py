"""What a user may see and do on the page, by Airflow's own permissions."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow.configuration import conf
from fastapi import HTTPException, Request, status

from airflow_provider_ray.compat.database import dags_that_exist
from airflow_provider_ray.compat.server import permitted_connections, permitted_dags

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_ray.compat.server import BaseUser

__all__ = ["permitted_connections", "readable_dags", "requires_own_page"]


def readable_dags(dag_ids: Collection[str], user: BaseUser) -> set[str]:
    """Those of some Dags that exist in this Airflow and the user may read."""
    return permitted_dags(dags_that_exist(dag_ids), user)


def requires_own_page(request: Request) -> None:
    """Refuse requests that a page of another origin could send with the user's cookie.

    :raises HTTPException: 403 when the request does not come from this Airflow, 415 when it is not JSON.
    """
    if not _is_own(request):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "This request must come from a page of this Airflow")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, "The request body must be application/json")


def _is_own(request: Request) -> bool:
    """Whether the request comes from a page of this Airflow.

    Browsers send Sec-Fetch-Site over HTTPS and on localhost only, but Origin always.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    base = urlsplit(conf.get("api", "base_url", fallback=""))
    hosts = ((request.url.scheme, request.headers.get("host")), (base.scheme, base.netloc))
    return request.headers.get("origin") in {f"{scheme}://{host}" for scheme, host in hosts if host}
