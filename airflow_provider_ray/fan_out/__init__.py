"""One job on many clusters."""

from airflow_provider_ray.fan_out.options import CallOptions, JobOptions
from airflow_provider_ray.fan_out.plan import Shard
from airflow_provider_ray.fan_out.task_group import ray_fan_out

__all__ = ["CallOptions", "JobOptions", "Shard", "ray_fan_out"]
