from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.errors import RayRequestRefused
from airflow_provider_ray.client.jobs.packaging import build
from tests.contract.conftest import Cluster, log_of, run

pytestmark = pytest.mark.anyio


async def test_packages_are_stored(client: RayClient, name: str) -> None:
    uri = f"gcs://{name}.zip"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("main.py", "")
    assert not await client.cluster.has_package(uri)
    await client.cluster.put_package(uri, buffer.getvalue())
    assert await client.cluster.has_package(uri)


async def test_a_package_over_the_limit(client: RayClient, name: str) -> None:
    with pytest.raises(RayRequestRefused, match="413: Maximum request body size 104857600 exceeded"):
        await client.cluster.put_package(f"gcs://{name}.zip", bytes(100 * 1024 * 1024 + 1))


async def test_a_job_imports_from_its_working_dir(
    cluster: Cluster, client: RayClient, name: str, tmp_path: Path
) -> None:
    cluster.expect(name, log=f"{name} Grüße\nexecuted\n".encode())
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/words.py").write_text(f"WORDS = '{name} Grüße'", "utf-8")
    (tmp_path / "main.py").write_text("from pkg.words import WORDS\nprint(WORDS)")
    (tmp_path / "run.sh").write_text("#!/bin/sh\necho executed\n")
    (tmp_path / "run.sh").chmod(0o755)
    runtime_env = {"working_dir": str(tmp_path), "env_vars": {"PYTHONIOENCODING": "utf-8"}}
    script = "sh run.sh" if cluster.ray < (2, 50) else "./run.sh"  # Ray 2.49 drops the executable bit
    job = await run(client, name, f"python main.py && {script}", runtime_env=runtime_env)
    assert await log_of(client, job) == f"{name} Grüße\nexecuted\n".encode()
    assert job.status == "SUCCEEDED"
    assert await client.cluster.has_package(build(tmp_path).uri)


async def test_an_empty_working_dir(cluster: Cluster, client: RayClient, name: str, tmp_path: Path) -> None:
    job = await run(client, cluster.expect(name), "true", runtime_env={"working_dir": str(tmp_path)})
    assert job.status == "SUCCEEDED"
