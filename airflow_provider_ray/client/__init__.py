"""Ray's REST API over aiohttp: knows Ray, knows neither Airflow nor the ``ray`` package.

Start at :class:`airflow_provider_ray.client.api.ray_client.RayClient`. This package module stays empty so that
importing ``client.errors`` does not import aiohttp.
"""
