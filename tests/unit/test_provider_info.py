"""What Airflow discovers about the package."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from importlib.metadata import distribution
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from airflow.sdk.module_loading import import_string

from airflow_provider_ray.client.config import EXTRA_FIELDS
from airflow_provider_ray.provider_info import get_provider_info


def test_the_forms_behaviour_has_the_keys_that_airflow_reads() -> None:
    behaviour = get_provider_info()["connection-types"][0]["ui-field-behaviour"]
    assert set(behaviour) == {"hidden-fields", "relabeling", "placeholders"}


def test_fits_airflows_schema() -> None:
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_is_what_the_entry_point_returns() -> None:
    own = distribution("airflow-provider-ray-fleet")
    (entry,) = own.entry_points.select(group="apache_airflow_provider")
    assert entry.load()() == get_provider_info()
    assert get_provider_info()["package-name"] == own.name


def test_every_name_can_be_imported() -> None:
    info = get_provider_info()
    for kind in ("operators", "sensors", "hooks", "triggers"):
        for row in info[kind]:
            for module in row["python-modules"]:
                import_module(module)
    for path in [*info["extra-links"], *info["cli"], info["connection-types"][0]["hook-class-name"]]:
        assert callable(import_string(path))


def test_the_form_offers_exactly_the_fields_that_are_read() -> None:
    fields = get_provider_info()["connection-types"][0]["conn-fields"]
    assert set(fields) == EXTRA_FIELDS
    assert all("null" in field["schema"]["type"] for field in fields.values())


def test_secret_extras_have_names_that_airflow_masks() -> None:
    from airflow.sdk._shared.secrets_masker import redact

    fields: dict[str, Any] = {name: {"X": "value"} for name in ("auth_headers", "serve_auth_headers")}
    assert redact({**fields, "serve_token": "value", "cluster_token": "value"}) == {
        "auth_headers": {"X": "***"},
        "serve_auth_headers": {"X": "***"},
        "serve_token": "***",
        "cluster_token": "***",
    }


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ("list", {"package_name": "airflow-provider-ray-fleet"}),
        ("hooks", {"connection_type": "ray", "class": "airflow_provider_ray.hooks.ray.RayHook"}),
        ("triggers", {"class": "airflow_provider_ray.triggers.job", "integration_name": "Ray"}),
    ],
)
def test_airflow_lists_the_provider(listing: str, expected: dict[str, str]) -> None:
    command = [sys.executable, "-m", "airflow", "providers", listing, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout[done.stdout.index("[{") :])
    assert [row for row in rows if expected.items() <= row.items()]


def test_parsing_a_dag_loads_neither_ray_nor_aiohttp() -> None:
    program = (
        "import sys\n"
        "from airflow_provider_ray.operators.job import RaySubmitJobOperator\n"
        "from airflow_provider_ray.operators.serve import RayServeOperator\n"
        "from airflow_provider_ray.sensors.job import RayJobSensor\n"
        "from airflow_provider_ray.sensors.cluster import RayClusterSensor\n"
        "import airflow_provider_ray.clusters.discovery\n"
        "RaySubmitJobOperator(task_id='a', entrypoint='true')\n"
        "print([name for name in ('ray', 'aiohttp', 'numpy', 'requests') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
