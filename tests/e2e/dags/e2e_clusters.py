"""Dags that look at clusters: what a task can know of them, and waiting until they have room."""

from __future__ import annotations

from airflow.sdk import dag, task
from e2e_settings import DEFAULTS, RETRIED

from airflow_provider_ray.clusters import discovery
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.sensors.cluster import RayClusterSensor

ALL = ["ray_local_1", "ray_local_2", "ray_local_3"]


@task
def chosen() -> list[str]:
    return discovery.select("place=e2e")


@task
def known() -> list[str]:
    return discovery.candidates()


@task
def cpus() -> float:
    return RayHook("ray_local_3").get_capacity().total["CPU"]


@dag(**DEFAULTS)
def e2e_clusters() -> None:
    """Clusters that are healthy, have no GPU, or refuse the token."""
    chosen()
    known()
    cpus()
    RayClusterSensor(task_id="blocking", conn_id=ALL, free_resources={"memory": 1}, timeout=300, **RETRIED)
    # The first two have two CPUs, the third has four.
    RayClusterSensor(
        task_id="deferred",
        conn_id=ALL,
        free_resources={"CPU": "{{ 2.1 }}"},
        policy="any",
        deferrable=True,
        timeout=300,
        **RETRIED,
    )
    RayClusterSensor(
        task_id="lacking",
        conn_id=ALL,
        free_resources={"GPU": 1},
        deferrable=True,
        poke_interval=2,
        timeout=5,
        **RETRIED,
    )
    RayClusterSensor(task_id="refused", conn_id=["ray_local_1", "wrong_token"], policy="any")


e2e_clusters()
