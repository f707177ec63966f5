from __future__ import annotations

import json
import subprocess
import sys

import pytest

LOADED = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
CLIENT = "airflow_provider_ray.client"


def loaded_by(module: str) -> set[str]:
    argv = [sys.executable, "-c", LOADED, module]
    return set(json.loads(subprocess.run(argv, capture_output=True, check=True, text=True).stdout))


@pytest.mark.parametrize("module", ["errors", "config", "states", "api.job_spec", "api.models"])
def test_what_dag_files_need_loads_little(module: str) -> None:
    assert not loaded_by(f"{CLIENT}.{module}") & {"aiohttp", "anyio", "tenacity", "yaml", "airflow", "ray"}


@pytest.mark.parametrize("module", ["jobs.outcome", "jobs.submission", "sharing.shared_client", "sync"])
def test_the_client_knows_neither_airflow_nor_ray(module: str) -> None:
    assert not loaded_by(f"{CLIENT}.{module}") & {"airflow", "ray"}
