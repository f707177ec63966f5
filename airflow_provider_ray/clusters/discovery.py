"""Which connections of type ``ray`` there are, and which of them a selector means.

Airflow lets a task look up a connection by its id and does not tell it which there are (Airflow 3.3). So a worker
knows of those in its environment and of those that the Airflow Variable ``ray_clusters`` names. Everything here
blocks: it asks Airflow.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping

from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowException

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.labels import EXAMPLE, parse_labels
from airflow_provider_ray.hooks.ray import RayHook

log = logging.getLogger(__name__)

VARIABLE = "ray_clusters"
ENVIRONMENT = "AIRFLOW_CONN_"


def candidates() -> list[str]:
    """Ids of the connections that every process of Airflow can know of, sorted.

    They are those of type ``ray`` in ``AIRFLOW_CONN_...`` variables, and those that the Airflow Variable
    ``ray_clusters`` names, a JSON list.

    :raises RayConfigError: when the Variable holds something else.
    """
    return sorted({*_in_environment(), *_in_variable()})


def parse_selector(selector: str) -> dict[str, str]:
    """Labels that a cluster must have.

    :param selector: such as ``site=hpc,gpu=true``.
    :raises RayConfigError: when it is something else, or empty.
    """
    if not isinstance(selector, str) or not selector.strip():
        got = repr(selector) if selector else "nothing"
        raise RayConfigError("selector", got, f"labels such as {EXAMPLE}")
    return parse_labels("selector", selector)


def select(selector: str, conn_ids: Iterable[str] | None = None) -> list[str]:
    """Ids of the clusters that have all labels of a selector, sorted.

    A connection whose labels cannot be read is left out, and the log says so; a connection with another fault is not,
    so that the fault comes to light where the cluster is used.

    :param selector: such as ``site=hpc,gpu=true``.
    :param conn_ids: connections to choose from; default: the :func:`candidates`.
    :raises RayConfigError: when the selector is none, or no cluster has these labels.
    """
    wanted = parse_selector(selector)
    known = sorted(candidates() if conn_ids is None else conn_ids)
    labels = {conn_id: found for conn_id in known if (found := _labels(conn_id)) is not None}
    chosen = [conn_id for conn_id, own in labels.items() if wanted.items() <= own.items()]
    if not chosen:
        unread = sorted(set(known) - set(labels))
        raise RayConfigError(
            "clusters",
            f"the selector {selector!r}, which none of {known} has"
            + (f" (the labels of {unread} cannot be read, see the log)" if unread else ""),
            f"labels of a connection; a task knows connections of type ray in {ENVIRONMENT}... variables and those "
            f"that the Airflow Variable {VARIABLE} names, a JSON list of connection ids",
        )
    return chosen


def all_conn_ids() -> list[str]:
    """The candidates and all connections of type ``ray`` in the metadata database, sorted.

    For processes that have the database, which are the API server and the command line; a task has not.

    :raises sqlalchemy.exc.SQLAlchemyError: when the database cannot be read.
    :raises RayConfigError: see :func:`candidates`.
    """
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select as rows_of

    with create_session() as session:
        stored = session.scalars(rows_of(Connection.conn_id).where(Connection.conn_type == RayHook.conn_type)).all()
    return sorted({*stored, *candidates()})


def _in_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if name.startswith(ENVIRONMENT) and _type_of(name, value) == RayHook.conn_type:
            yield name.removeprefix(ENVIRONMENT).lower()


def _type_of(name: str, value: str) -> str | None:
    """Type of a connection as JSON or URI; nothing of what it says but that goes anywhere."""
    if not value.lstrip().startswith("{"):
        return value.strip().partition("://")[0].lower()
    try:
        return str(json.loads(value).get("conn_type"))
    except ValueError:
        log.warning("The environment variable %s is not valid JSON, so it is no connection", name)
        return None


def _in_variable() -> list[str]:
    # Airflow 3.3 takes a Variable that is not the JSON that it was asked for as one that is not there.
    text = Variable.get(VARIABLE, default=None)
    if text is None:
        return []
    try:
        conn_ids = json.loads(text)
    except ValueError:
        conn_ids = None
    if not isinstance(conn_ids, list) or not all(isinstance(each, str) and each.strip() for each in conn_ids):
        raise RayConfigError(
            f"Airflow Variable {VARIABLE}", repr(text)[:200], 'a JSON list of connection ids, such as ["ray_lab"]'
        )
    return [conn_id.strip() for conn_id in conn_ids]


def _labels(conn_id: str) -> Mapping[str, str] | None:
    try:
        return RayHook(conn_id).get_labels()
    except (AirflowException, PermissionError, RayConfigError) as error:
        log.warning("The connection %r is left out, its labels cannot be read: %s", conn_id, error)
        return None
