"""What importing the operators and parsing a Dag with them costs: this package, the Google provider's, none.

All run in the same virtual environment, interleaved, each in a fresh interpreter that has imported Airflow's own
authoring API already; so the figures are what the operators add.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-google" / "bin" / "python"
ROUNDS = 7
PROBE = """
import json, sys, time
from airflow.sdk import DAG, BaseOperator
with DAG("bare", schedule=None):
    BaseOperator(task_id="bare")
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
cpu, memory = time.process_time(), resident()
{imports}
with DAG("measured", schedule=None):
    {task}
print(json.dumps({{
    "cpu_ms": (time.process_time() - cpu) * 1000,
    "memory_mb": resident() - memory,
    "ray": "ray" in sys.modules,
    "aiohttp": "aiohttp" in sys.modules,
}}))
"""
SUBJECTS = {
    "bare Airflow operator": (
        "from airflow.providers.standard.operators.empty import EmptyOperator",
        "EmptyOperator(task_id='a')",
    ),
    "airflow-provider-ray-fleet": (
        "from airflow_provider_ray.operators.job import RaySubmitJobOperator\n"
        "from airflow_provider_ray.operators.serve import RayServeOperator\n"
        "from airflow_provider_ray.sensors.job import RayJobSensor",
        "RaySubmitJobOperator(task_id='a', entrypoint='true')",
    ),
    "Google provider": (
        "from airflow.providers.google.cloud.operators.ray import RaySubmitJobOperator",
        "RaySubmitJobOperator(task_id='a', cluster_address='http://127.0.0.1:8265', entrypoint='true')",
    ),
}


def measure() -> dict[str, Any]:
    """Median CPU milliseconds and megabytes that each subject adds, and their ratios."""
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in SUBJECTS}
    with tempfile.TemporaryDirectory() as home:
        for _ in range(ROUNDS + 1):
            for name, (imports, task) in SUBJECTS.items():
                samples[name].append(_probe(home, PROBE.format(imports=imports, task=task)))
    results = {name: _median(rows[1:]) for name, rows in samples.items()}
    ours, bare, google = (
        results[name] for name in ("airflow-provider-ray-fleet", "bare Airflow operator", "Google provider")
    )
    return {
        "per subject": results,
        "more than a bare operator": {
            "cpu_ms": ours["cpu_ms"] - bare["cpu_ms"],
            "memory_mb": ours["memory_mb"] - bare["memory_mb"],
        },
        "Google provider / this package": {
            "cpu": google["cpu_ms"] / ours["cpu_ms"],
            "memory": google["memory_mb"] / max(ours["memory_mb"], 0.1),
        },
    }


def _probe(home: str, program: str) -> dict[str, Any]:
    environment = {**os.environ, "AIRFLOW_HOME": home, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [PYTHON, "-c", program], env=environment, cwd=home, capture_output=True, text=True, check=True
    )
    sample: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return sample


def _median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "cpu_ms": statistics.median(row["cpu_ms"] for row in rows),
        "memory_mb": statistics.median(row["memory_mb"] for row in rows),
        "loads": [name for name in ("ray", "aiohttp") if any(row[name] for row in rows)],
    }
