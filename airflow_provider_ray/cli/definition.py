"""The commands of `airflow ray`. Airflow reads this whenever its command line starts, so it loads nothing else."""

from __future__ import annotations

from airflow_provider_ray.compat.cli_config import (
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
JOBS = "airflow_provider_ray.cli.jobs"

ARG_COUNT = Arg(
    ("-n", "--count"), type=positive_int(allow_zero=False), default=3, help="Number of clusters to start (default: 3)"
)
ARG_DIRECTORY = Arg(("-d", "--dir"), help="Directory for the state file and logs (default: ray_local in AIRFLOW_HOME)")
ARG_PREFIX = Arg(
    ("--prefix",),
    default="ray_local",
    help="Name the clusters and their connections PREFIX_1, PREFIX_2, ... (default: ray_local)",
)
ARG_NUM_CPUS = Arg(
    ("--num-cpus",),
    type=positive_int(allow_zero=False),
    default=2,
    help="Number of CPUs per cluster, regardless of the host (default: 2)",
)
ARG_TOKEN = Arg(("--token",), action="store_true", help="Protect each cluster with its own token (default: no tokens)")
ARG_FORMAT = Arg(
    ("--format",),
    choices=("json", "env"),
    default="json",
    help="Output format: json for 'airflow connections import', env for a shell (default: json)",
)
ARG_KEEP = Arg(("--keep-temp-dir",), action="store_true", help="Keep Ray's temporary directories, including all logs")

ARG_CONN_ID = Arg(
    ("--conn-id",),
    action="extend",
    nargs="+",
    metavar="ID",
    help="Connections to show (default: all connections of type ray)",
)
ARG_SELECTOR = Arg(("--selector",), help="Show only clusters with these labels, such as site=hpc,gpu=true")

ARG_CLEANED = Arg(
    ("--conn-id",), action="extend", nargs="+", metavar="ID", help="Connections of the clusters to delete records from"
)
ARG_CLEANED_SELECTOR = Arg(("--selector",), help="Clusters to delete records from, by label, such as site=hpc,gpu=true")
ARG_OLDER_THAN = Arg(
    ("--older-than",), required=True, metavar="AGE", help="Age since the end of the job, such as 7d or 36h; at least 1d"
)
ARG_DRY_RUN = Arg(("--dry-run",), action="store_true", help="Only count the records that would be deleted")

JOB_COMMANDS = (
    ActionCommand(
        name="clean",
        help="Delete old records of ended jobs that this Airflow submitted",
        description=(
            "Ray keeps the records of all jobs, and a list of them takes longer with each. This deletes the records "
            "of jobs that this Airflow submitted and that ended a while ago; their logs stay on the cluster."
        ),
        func=lazy_load_command(f"{JOBS}.clean_jobs"),
        args=(ARG_OLDER_THAN, ARG_CLEANED, ARG_CLEANED_SELECTOR, ARG_DRY_RUN, ARG_OUTPUT, ARG_VERBOSE),
    ),
)

LOCAL_COMMANDS = (
    ActionCommand(
        name="up",
        help="Start Ray clusters on this host and print their Airflow connections",
        func=lazy_load_command(f"{COMMANDS}.local_up"),
        args=(ARG_COUNT, ARG_DIRECTORY, ARG_PREFIX, ARG_NUM_CPUS, ARG_TOKEN, ARG_FORMAT, ARG_VERBOSE),
    ),
    ActionCommand(
        name="status",
        help="Show the Ray clusters on this host that 'up' started",
        func=lazy_load_command(f"{COMMANDS}.local_status"),
        args=(ARG_DIRECTORY, ARG_OUTPUT, ARG_VERBOSE),
    ),
    ActionCommand(
        name="down",
        help="Stop the Ray clusters on this host that 'up' started, and no others",
        func=lazy_load_command(f"{COMMANDS}.local_down"),
        args=(ARG_DIRECTORY, ARG_KEEP, ARG_VERBOSE),
    ),
)


def get_cli_commands() -> list[GroupCommand]:
    """Return the command groups that this provider adds to Airflow's command line."""
    local = GroupCommand(name="local", help="Manage Ray clusters on this host", subcommands=LOCAL_COMMANDS)
    clusters = ActionCommand(
        name="clusters",
        help="Show the health, capacity and jobs of the clusters behind the connections",
        func=lazy_load_command(f"{CLUSTERS}.clusters"),
        args=(ARG_CONN_ID, ARG_SELECTOR, ARG_OUTPUT, ARG_VERBOSE),
    )
    jobs = GroupCommand(name="jobs", help="Manage jobs on Ray clusters", subcommands=JOB_COMMANDS)
    return [GroupCommand(name="ray", help="Work with Ray clusters", subcommands=(clusters, jobs, local))]
