"""What `airflow ray` offers; read at every start of the Airflow command line, so it loads nothing else."""

from __future__ import annotations

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_VERBOSE,
    ActionCommand,
    Arg,
    GroupCommand,
    lazy_load_command,
    positive_int,
)

COMMANDS = "airflow_provider_ray.cli.commands"
CLUSTERS = "airflow_provider_ray.cli.clusters"

ARG_COUNT = Arg(
    ("-n", "--count"), type=positive_int(allow_zero=False), default=3, help="Clusters to start (default: 3)"
)
ARG_DIRECTORY = Arg(
    ("-d", "--dir"), help="Directory of the state file and the logs (default: ray_local in AIRFLOW_HOME)"
)
ARG_NUM_CPUS = Arg(
    ("--num-cpus",),
    type=positive_int(allow_zero=False),
    default=2,
    help="CPUs that each cluster offers to Ray, whatever the host has (default: 2)",
)
ARG_TOKEN = Arg(
    ("--token",), action="store_true", help="Protect each cluster with a token of its own (default: no token)"
)
ARG_FORMAT = Arg(
    ("--format",),
    choices=("json", "env"),
    default="json",
    help="json for 'airflow connections import', or env for a shell (default: json)",
)
ARG_KEEP = Arg(("--keep-temp-dir",), action="store_true", help="Leave Ray's temp dirs, with all logs, in place")

ARG_CONN_ID = Arg(
    ("--conn-id",),
    action="extend",
    nargs="+",
    metavar="ID",
    help="Connections to show (default: all of type ray that Airflow knows)",
)
ARG_SELECTOR = Arg(("--selector",), help="Show clusters with these labels only, such as site=hpc,gpu=true")

LOCAL_COMMANDS = (
    ActionCommand(
        name="up",
        help="Start Ray clusters on this host and print their Airflow connections",
        func=lazy_load_command(f"{COMMANDS}.local_up"),
        args=(ARG_COUNT, ARG_DIRECTORY, ARG_NUM_CPUS, ARG_TOKEN, ARG_FORMAT, ARG_VERBOSE),
    ),
    ActionCommand(
        name="status",
        help="Show the Ray clusters of this host that 'up' started",
        func=lazy_load_command(f"{COMMANDS}.local_status"),
        args=(ARG_DIRECTORY, ARG_OUTPUT, ARG_VERBOSE),
    ),
    ActionCommand(
        name="down",
        help="Stop the Ray clusters of this host that 'up' started, and no others",
        func=lazy_load_command(f"{COMMANDS}.local_down"),
        args=(ARG_DIRECTORY, ARG_KEEP, ARG_VERBOSE),
    ),
)


def get_cli_commands() -> list[GroupCommand]:
    """Return the command groups that this provider adds to Airflow's command line."""
    local = GroupCommand(name="local", help="Ray clusters on this host", subcommands=LOCAL_COMMANDS)
    clusters = ActionCommand(
        name="clusters",
        help="Show what the clusters behind the connections have, and how they are",
        func=lazy_load_command(f"{CLUSTERS}.clusters"),
        args=(ARG_CONN_ID, ARG_SELECTOR, ARG_OUTPUT, ARG_VERBOSE),
    )
    return [GroupCommand(name="ray", help="Ray clusters", subcommands=(clusters, local))]
