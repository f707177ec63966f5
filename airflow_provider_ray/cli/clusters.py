"""`airflow ray clusters`: the clusters of this Airflow, their health and capacity."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from airflow.configuration import AIRFLOW_HOME
from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException
from rich.markup import escape
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_ray.client.api.capacity import Capacity
from airflow_provider_ray.client.clusters.health import healthy_or_fault
from airflow_provider_ray.client.clusters.survey import survey
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayConfigError, RayError
from airflow_provider_ray.client.sync import run_sync
from airflow_provider_ray.clusters import discovery
from airflow_provider_ray.compat.cli import (
    AirflowConsole,
    action_cli,
    providers_configuration_loaded,
    reading_the_database,
)
from airflow_provider_ray.hooks.ray import RayHook

NOT_THERE = "no such connection"
UNKNOWN = "?"
GIB = 2**30

Row = dict[str, Any]


@action_cli(check_db=False)
@providers_configuration_loaded
def clusters(args: Namespace) -> None:
    """Query all clusters at the same time and print a row for each."""
    try:
        configs = named_clusters(args)
    except RayConfigError as error:
        raise SystemExit(str(error)) from error
    if not configs:
        where = (
            f"the database of {AIRFLOW_HOME}, {discovery.ENVIRONMENT}... or the Airflow Variable {discovery.VARIABLE}"
        )
        print(f"There is no connection of type ray in {where}", file=sys.stderr)
    usable = {conn_id: config for conn_id, config in configs.items() if isinstance(config, ClusterConfig)}
    answers = run_sync(partial(survey, usable))
    _print([_row(conn_id, config, answers.get(conn_id)) for conn_id, config in configs.items()], args.output)


def named_clusters(args: Namespace) -> Mapping[str, ClusterConfig | str]:
    """The clusters that --conn-id and --selector name, or why one cannot be used.

    :raises RayConfigError: when an option names none.
    """
    known = _known()
    configs = {conn_id: _config(conn_id) for conn_id in sorted(set(args.conn_id or known))}
    if unknown := [conn_id for conn_id in args.conn_id or () if configs[conn_id] == NOT_THERE]:
        raise RayConfigError("--conn-id", repr(unknown), f"connections of type ray; those found are {known}")
    chosen = configs if args.selector is None else discovery.select(args.selector, configs)
    return {conn_id: configs[conn_id] for conn_id in chosen}


def _known() -> list[str]:
    try:
        with reading_the_database():
            return discovery.all_conn_ids()
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        print(f"Skipping the connections in Airflow's database, which cannot be read: {reason}", file=sys.stderr)
        return discovery.candidates()


def _config(conn_id: str) -> ClusterConfig | str:
    """The configuration, or why there is none."""
    try:
        return RayHook(conn_id).get_config()
    except AirflowNotFoundException:
        return NOT_THERE
    except (AirflowException, PermissionError, RayConfigError) as error:
        return str(error)


def _row(conn_id: str, config: ClusterConfig | str, answer: Capacity | RayError | None) -> Row:
    """What is known about a cluster, as plain JSON; null is unknown."""
    amounts = {
        f"{name.lower()}_{kind}": _amount(answer, kind, name) if isinstance(answer, Capacity) else None
        for name in ("CPU", "GPU", "memory")
        for kind in ("free", "total")
    }
    told = {name: getattr(answer, name, None) for name in ("ray_version", "python_version", "nodes")}
    jobs = {name: getattr(answer, name, None) for name in ("running_jobs", "pending_jobs", "pending_demands")}
    unknown = dict(answer.unknown) if isinstance(answer, Capacity) else {}
    labels = dict(config.labels) if isinstance(config, ClusterConfig) else None
    row = {"conn_id": conn_id, "health": _health(config, answer), **told, **amounts, **jobs}
    return {**row, "unknown": unknown, "labels": labels}


def _health(config: ClusterConfig | str, answer: Capacity | RayError | None) -> str:
    if isinstance(config, str) or answer is None:
        return str(config)
    found = healthy_or_fault(answer)
    return str(found) if isinstance(found, RayError) else "healthy"


def _amount(capacity: Capacity, kind: str, name: str) -> float | None:
    if name not in capacity.total:
        return 0.0
    amounts: Mapping[str, float] | None = getattr(capacity, kind)
    return None if amounts is None else amounts.get(name)


def _print(rows: Any, output: str) -> None:
    console = AirflowConsole()
    # Airflow's print_as() turns every number into a string.
    if output == "json":
        console.print_as_json(rows)
    elif output == "yaml":
        console.print_as_yaml(rows)
    else:
        # In a table, [words] would be read as a style.
        shown: Callable[[str], str] = escape if output == "table" else str
        console.print_as([{name: shown(text) for name, text in _cells(row).items()} for row in rows], output)


def _cells(row: Row) -> dict[str, str]:
    """The row for people to read: free and total in one cell, memory in GiB."""
    return {
        "conn_id": row["conn_id"],
        "health": row["health"],
        "ray": _text(row["ray_version"]),
        "python": _text(row["python_version"]),
        "nodes": _text(row["nodes"]),
        "CPU free": _share(row, "cpu"),
        "GPU free": _share(row, "gpu"),
        "GiB free": _share(row, "memory", GIB),
        "running": _text(row["running_jobs"]),
        "pending": _text(row["pending_jobs"]),
        "labels": ",".join(f"{key}={value}" for key, value in (row["labels"] or {}).items()),
    }


def _share(row: Row, name: str, unit: int = 1) -> str:
    free, total = (row[f"{name}_{kind}"] for kind in ("free", "total"))
    if total is None:
        return UNKNOWN
    return f"{UNKNOWN if free is None else format(free / unit, '.4g')}/{total / unit:.4g}"


def _text(value: Any) -> str:
    return UNKNOWN if value is None else str(value)
