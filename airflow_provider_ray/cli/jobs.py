"""`airflow ray jobs`: what Ray keeps of jobs that have ended."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from typing import Any

from rich.markup import escape

from airflow_provider_ray.cli.clusters import named_clusters
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.clusters.asking import Question, ask_all
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayConfigError, RayError
from airflow_provider_ray.client.jobs.records import SECONDS_PER_DAY, clean, old_records
from airflow_provider_ray.client.sync import run_sync
from airflow_provider_ray.compat.cli import AirflowConsole, action_cli, providers_configuration_loaded
from airflow_provider_ray.hooks import options

_AGE = re.compile(r"([0-9]{1,6})([dh])")
_SECONDS = {"h": 3600.0, "d": SECONDS_PER_DAY}


@action_cli(check_db=False)
@providers_configuration_loaded
def clean_jobs(args: Namespace) -> None:
    """Delete old records on all clusters at the same time, and print a row for each cluster."""
    try:
        seconds = age(args.older_than)
        if not args.conn_id and args.selector is None:
            raise RayConfigError("--conn-id and --selector", "neither", "one of them: records are deleted there")
        configs = named_clusters(args)
    except RayConfigError as error:
        raise SystemExit(str(error)) from error
    found = run_sync(partial(_cleaned, configs, seconds, dry_run=args.dry_run))
    what = "would be deleted" if args.dry_run else "deleted"
    rows = [
        {
            "conn_id": conn_id,
            what: str(count) if isinstance(count, int) else "",
            "fault": "" if isinstance(count, int) else escape(str(count)),
        }
        for conn_id, count in found.items()
    ]
    AirflowConsole().print_as(data=rows, output=args.output)
    if faults := [conn_id for conn_id, count in found.items() if not isinstance(count, int)]:
        raise SystemExit(f"No records were deleted, or not all of them, on {', '.join(faults)}")


def age(text: str) -> float:
    """Seconds of an age such as 7d or 36h.

    :raises RayConfigError: when it is not an age, or less than a day, in which a task may still look for its job.
    """
    found = _AGE.fullmatch(text.strip())
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0.0
    if seconds < _SECONDS["d"]:
        raise RayConfigError("--older-than", repr(text), "days or hours such as 7d or 36h, at least 1d")
    return seconds


async def _cleaned(
    configs: Mapping[str, ClusterConfig | str], seconds: float, *, dry_run: bool
) -> dict[str, int | RayError | str]:
    """How many records were deleted, or found, on each cluster; or why it went wrong."""
    found: dict[str, Any] = dict(configs)
    usable = {conn_id: config for conn_id, config in configs.items() if isinstance(config, ClusterConfig)}
    ask = partial(_count if dry_run else clean, older_than=seconds, installation=options.installation())
    answers = await ask_all([Question(RayClient(config), ask) for config in usable.values()])
    return found | dict(zip(usable, answers, strict=True))


async def _count(client: RayClient, older_than: float, installation: str) -> int:
    return len(await old_records(client, older_than, installation))
