"""The `airflow ray local` commands. Connections and tables go to standard output, progress to standard error."""

from __future__ import annotations

import json
import secrets
import shlex
import sys
from argparse import Namespace
from pathlib import Path

from airflow.configuration import AIRFLOW_HOME

from airflow_provider_ray import local
from airflow_provider_ray.compat.cli import AirflowConsole, action_cli


@action_cli(check_db=False)
def local_up(args: Namespace) -> None:
    """Start clusters on this host and print their connections."""
    tokens = [secrets.token_hex(32) for _ in range(args.count)] if args.token else []
    try:
        options = local.LocalOptions(prefix=args.prefix, num_cpus=args.num_cpus, tokens=tokens)
        clusters = local.up(args.count, _directory(args), options, progress=_tell)
    except local.LocalClusterError as error:
        raise SystemExit(str(error)) from error
    print(_as_shell(clusters) if args.format == "env" else _as_json(clusters))


@action_cli(check_db=False)
def local_status(args: Namespace) -> None:
    """Show the clusters started from the directory."""
    rows = [
        {"conn_id": cluster.name, "state": state, "url": cluster.url, "serve_url": cluster.serve_url}
        | {"pid": str(cluster.pid), "log": cluster.log_file}
        for cluster, state in local.status(_directory(args))
    ]
    AirflowConsole().print_as(data=rows, output=args.output)


@action_cli(check_db=False)
def local_down(args: Namespace) -> None:
    """Stop the clusters started from the directory."""
    try:
        clusters = local.down(_directory(args), keep_temp_dir=args.keep_temp_dir)
    except local.LocalClusterError as error:
        raise SystemExit(str(error)) from error
    for cluster in clusters:
        kept = f"; its temporary directory is {cluster.temp_dir}" if args.keep_temp_dir else ""
        _tell(f"{cluster.name} stopped{kept}")
    if not clusters:
        _tell(f"No clusters found in {_directory(args)}")


def _directory(args: Namespace) -> Path:
    return Path(args.dir) if args.dir else Path(AIRFLOW_HOME, "ray_local")


def _as_json(clusters: list[local.LocalCluster]) -> str:
    return json.dumps(local.connections(clusters), indent=2)


def _as_shell(clusters: list[local.LocalCluster]) -> str:
    variables = local.connection_variables(clusters).items()
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
