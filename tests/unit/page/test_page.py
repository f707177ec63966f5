"""What Airflow reads of the plugin."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from urllib.parse import urljoin, urlsplit

import pytest
from airflow.sdk.types import TaskInstanceKey

from airflow_provider_ray.links import RayPictureLink
from airflow_provider_ray.operators.job import RaySubmitJobOperator
from airflow_provider_ray.page import RayPlugin


def test_it_is_found_through_its_entry_point() -> None:
    assert [each.load() for each in entry_points(group="airflow.plugins") if each.name == "ray"] == [RayPlugin]


def test_every_process_loads_it_and_pays_nothing_for_it() -> None:
    program = (
        "import sys, airflow.plugins_manager\n"
        "before = set(sys.modules)\n"
        "from airflow_provider_ray.page import RayPlugin\n"
        "print(RayPlugin().external_views and sorted(set(sys.modules) - before - {'airflow_provider_ray'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['airflow_provider_ray.page']"


@pytest.mark.parametrize("root", ["https://airflow.example/", "https://airflow.example/team/a/"])
def test_its_addresses_are_below_the_root_of_the_ui(root: str) -> None:
    for view in RayPlugin.external_views:
        assert urljoin(root, view["href"]).startswith(f"{root}ray/page")
    operator = RaySubmitJobOperator(task_id="a", entrypoint="true")
    key = TaskInstanceKey("dag/1", "a.b", "manual__2026-01-01T00:00:00+00:00", 1, 3)
    path = "ray/dags/dag%2F1/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00/tasks/a.b/3/picture"
    assert urljoin(root, RayPictureLink().get_link(operator, ti_key=key)) == root + path


def test_its_views_are_routes_of_its_application() -> None:
    (served,) = RayPlugin().fastapi_apps
    routes = {f"{served['url_prefix']}{route.path}" for route in served["app"].routes}
    assert {f"/{urlsplit(view['href']).path}" for view in RayPlugin.external_views} <= routes
