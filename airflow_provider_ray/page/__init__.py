"""The "Ray" page in Airflow's UI, and the tab of that name on each task.

Every Airflow process loads this module, so it imports nothing that only the API server needs.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

# Relative to the UI, which may live below a path ([api] base_url).
_PAGE = "ray/page"
_TASK = "dag_id={DAG_ID}&run_id={RUN_ID}&task_id={TASK_ID}&map_index={MAP_INDEX}"


class RayPlugin(AirflowPlugin):
    """Registered through the entry point ``airflow.plugins``."""

    name = "ray"
    external_views = [  # noqa: RUF012
        {"name": "Ray", "href": _PAGE, "destination": "nav", "url_route": "ray", "category": "browse"},
        {"name": "Ray", "href": f"{_PAGE}?{_TASK}", "destination": "task_instance", "url_route": "ray-jobs"},
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The routes below ``/ray``."""
        from airflow_provider_ray.page.api import app

        return [{"app": app, "url_prefix": "/ray", "name": "Ray"}]
