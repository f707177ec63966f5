"""The wheel, built and unpacked: Airflow finds the example Dags in it, and these find their job."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = ("errors", "path", "dags", "job")
DAGS = {"ray_processing_fan_out", "ray_processing_scheduled", "ray_processing_take_over"}
LOAD_EXAMPLES = """
from pathlib import Path
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag

bundle = DagBundlesManager().get_bundle("airflow-provider-ray-fleet-example-dags")
dags = BundleDagBag(bundle.path, bundle_path=bundle.path, bundle_name=bundle.name, safe_mode=False)
print("errors", dags.import_errors)
print("path", bundle.path)
print("dags", *sorted(dags.dags))
working_dir = Path(dags.dags["ray_processing_fan_out"].get_task("fan_out.on_cluster.submit").runtime_env["working_dir"])
print("job", (working_dir / "parallel_processing.py").is_file())
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built, folder = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("unpacked")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_the_wheel_has_the_package_the_page_and_the_examples_and_nothing_else(unpacked: Path) -> None:
    assert {path.name.partition("-")[0] for path in unpacked.iterdir()} == {
        "airflow_provider_ray",
        "airflow_provider_ray_fleet",
    }
    assert not list(unpacked.rglob("*.pyc"))
    missing = {
        path.relative_to(ROOT)
        for path in (ROOT / "airflow_provider_ray").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not (unpacked / path.relative_to(ROOT)).exists()
    }
    assert not missing


def test_airflow_finds_the_example_dags_and_these_find_their_job(unpacked: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "True",
        "PYTHONPATH": str(unpacked),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD_EXAMPLES], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Could not load provider module" not in done.stdout + done.stderr
    printed = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.split(" ")[0] in LINES)
    assert printed == {
        "errors": "{}",
        "path": str(unpacked / "airflow_provider_ray_fleet" / "example_dags"),
        "dags": " ".join(sorted(DAGS)),
        "job": "True",
    }
