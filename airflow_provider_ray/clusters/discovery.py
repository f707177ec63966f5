"""Which connections of type ``ray`` exist, and which of them a selector matches.

A task can look up a connection by its id but cannot list connections (Airflow 3.3). A worker therefore knows the
connections in its environment and those that the Airflow Variable ``ray_clusters`` names. Functions that look
something up in Airflow block.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping

from airflow.providers.common.compat.sdk import AirflowException
from airflow.sdk import Variable

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.labels import EXAMPLE, parse_labels
from airflow_provider_ray.hooks.ray import RayHook

log = logging.getLogger(__name__)

VARIABLE = "ray_clusters"
ENVIRONMENT = "AIRFLOW_CONN_"


def candidates() -> list[str]:
    """Ids of the connections that any Airflow process can know, sorted.

    These are the connections of type ``ray`` in ``AIRFLOW_CONN_...`` environment variables, and those listed in the
    Airflow Variable ``ray_clusters``, a JSON list.

    :raises RayConfigError: when the Variable holds anything else.
    """
    return sorted({*_in_environment(), *_in_variable()})


def parse_selector(selector: str) -> dict[str, str]:
    """The labels that a selector requires.

    :param selector: such as ``site=hpc,gpu=true``.
    :raises RayConfigError: when it is empty or not a selector.
    """
    if not isinstance(selector, str) or not selector.strip():
        got = repr(selector) if selector else "nothing"
        raise RayConfigError("selector", got, f"labels such as {EXAMPLE}")
    return parse_labels("selector", selector)


def select(selector: str, conn_ids: Iterable[str] | None = None, *, field: str = "clusters") -> list[str]:
    """Ids of the clusters that have every label of a selector, sorted.

    A connection whose labels cannot be read is skipped with a warning. A connection with any other fault is kept, so
    that the fault is reported where the cluster is used.

    :param selector: such as ``site=hpc,gpu=true``.
    :param conn_ids: connections to choose from; default: the :func:`candidates`.
    :param field: name of the argument, for the error.
    :raises RayConfigError: when this is not a selector, or no cluster has these labels.
    """
    wanted = parse_selector(selector)
    known = sorted(candidates() if conn_ids is None else conn_ids)
    labels = {conn_id: found for conn_id in known if (found := _labels(conn_id)) is not None}
    chosen = [conn_id for conn_id, own in labels.items() if wanted.items() <= own.items()]
    if not chosen:
        unread = sorted(set(known) - set(labels))
        raise RayConfigError(
            field,
            f"the selector {selector!r}, which matches none of {known}"
            + (f" (the labels of {unread} cannot be read, see the log)" if unread else ""),
            f"labels that a connection has; a task knows the connections of type ray in {ENVIRONMENT}... variables and "
            f"those listed in the Airflow Variable {VARIABLE}, a JSON list of connection ids",
        )
    return chosen


def all_conn_ids() -> list[str]:
    """The candidates and all connections of type ``ray`` in the metadata database, sorted.

    Only for processes with access to the database, which are the API server and the command line.

    :raises sqlalchemy.exc.SQLAlchemyError: when the database cannot be read.
    :raises RayConfigError: see :func:`candidates`.
    """
    from airflow_provider_ray.compat.database import connections_of_type

    return sorted({*connections_of_type(RayHook.conn_type), *candidates()})


def _in_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if name.startswith(ENVIRONMENT) and _type_of(name, value) == RayHook.conn_type:
            yield name.removeprefix(ENVIRONMENT).lower()


def _type_of(name: str, value: str) -> str | None:
    """Type of a connection given as JSON or URI. Nothing else of its content leaves this function."""
    if not value.lstrip().startswith("{"):
        return value.strip().partition("://")[0].lower()
    try:
        return str(json.loads(value).get("conn_type"))
    except (ValueError, RecursionError):
        log.warning("Ignoring the environment variable %s: it is not valid JSON", name)
        return None


def _in_variable() -> list[str]:
    # With deserialize_json=True, Airflow 3.3 returns the default for a Variable that is not valid JSON.
    text = Variable.get(VARIABLE, default=None)
    if text is None:
        return []
    try:
        conn_ids = json.loads(text)
    except (ValueError, RecursionError):
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
        log.warning("Skipping the connection %r: its labels cannot be read: %s", conn_id, error)
        return None
