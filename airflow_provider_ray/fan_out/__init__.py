"""One job over many clusters."""

from airflow_provider_ray.fan_out.task_group import ray_fan_out

__all__ = ["ray_fan_out"]
