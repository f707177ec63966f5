"""A fan-out of tasks that sleep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.sdk import dag

from airflow_provider_ray.fan_out import ray_fan_out

if TYPE_CHECKING:
    from airflow_provider_ray.fan_out.plan import Shard

WORK = """
import json, sys, time
import ray

parameters = json.loads(sys.argv[1])
ray.init(logging_level="ERROR")
work = ray.remote(lambda seconds: time.sleep(seconds))
ray.get([work.remote(parameters["seconds"]) for _ in range(parameters["number"])])
"""


def parameters(shard: Shard, params: Mapping[str, Any]) -> dict[str, Any]:
    return {"number": shard.amount, "seconds": params["seconds"]}


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    is_paused_upon_creation=False,
    params={"clusters": ["ray_local_1"], "tasks": 1, "seconds": 0.0},
)
def fan_out_benchmark() -> None:
    ray_fan_out(
        clusters="{{ params.clusters }}",
        amount="{{ params.tasks }}",
        weights=None,
        job={"entrypoint": ["python", "-c", WORK]},
        parameters=parameters,
    )


fan_out_benchmark()
