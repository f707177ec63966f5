"""A fan-out that the example Dags do not show: by labels, of items, of jobs that serve nothing."""

from __future__ import annotations

from airflow.sdk import dag
from e2e_settings import DEFAULTS

from airflow_provider_ray.fan_out import ray_fan_out


@dag(**DEFAULTS, params={"place": "e2e"})
def e2e_items() -> None:
    """Every job prints the items that are its own."""
    ray_fan_out(
        clusters="place={{ params.place }}",
        items=["heavy", "it's $(light)", "lighter", "lightest"],
        sizes=[6, 2, 1, 1],
        weights={"CPU": 1},
        capacity="total",
        job={"entrypoint": ["python", "-c", "import sys; print('items', sys.argv[1])"], "poll_interval": 1},
        parameters=lambda shard, params: [params["place"], *(shard.items or ())],
        policy="{{ 2 }}",
    )


e2e_items()
