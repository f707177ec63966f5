"""Local clusters as real Ray heads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from airflow_provider_ray import local
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayAuthError
from airflow_provider_ray.client.jobs.driver_log import read_log
from airflow_provider_ray.client.jobs.waiting import wait_for_job
from airflow_provider_ray.client.states import SUCCEEDED
from airflow_provider_ray.client.sync import run_sync
from airflow_provider_ray.local import head
from airflow_provider_ray.local.ports import is_free
from tests.snippets import snippets

T = TypeVar("T")

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]

WHERE_AM_I = """
import os, ray
ray.init(logging_level="ERROR")
print("cluster", ray.get_runtime_context().gcs_address, len(ray.nodes()), ray.cluster_resources()["CPU"])
"""
RAY_249 = Path(__file__).parents[2] / ".venv-ray249" / "bin" / "ray"


def ask(cluster: local.LocalCluster) -> list[str]:
    """Run a job that says where it runs: address, nodes and CPUs of the cluster that it sees."""
    name = f"where-{time.monotonic_ns()}"

    async def run(client: RayClient) -> str:
        await client.jobs.submit(JobSpec(entrypoint=f"python -c '{WHERE_AM_I}'", submission_id=name))
        job = await wait_for_job(client, name, poll_interval=0.2)
        assert job.status == SUCCEEDED, job
        return await read_log(client, name)

    (line,) = [line for line in with_client(cluster, run).splitlines() if line.startswith("cluster ")]
    return line.split()[1:]


def with_client(cluster: local.LocalCluster, action: Callable[[RayClient], Coroutine[Any, Any, T]]) -> T:
    async def opened() -> T:
        async with RayClient(ClusterConfig(url=cluster.url, token=cluster.token)) as client:
            return await action(client)

    return run_sync(opened)


def records(cluster: local.LocalCluster) -> list[str | None]:
    return [job.submission_id for job in with_client(cluster, lambda client: client.jobs.list())]


def airflow(*words: str, home: Path) -> str:
    command = [sys.executable, "-m", "airflow", "ray", "local", *words]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment = inherited | {"AIRFLOW_HOME": str(home)}
    return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout


def assert_freed(cluster: local.LocalCluster) -> None:
    """The kernel may need a moment for the sockets of a process that was killed."""
    deadline = time.monotonic() + 10
    while taken := [port for port in cluster.ports if not is_free(port)]:
        assert time.monotonic() < deadline, taken
        time.sleep(0.2)


def test_two_sets_of_clusters_know_nothing_of_each_other(tmp_path: Path) -> None:
    with local.local_clusters(1) as (cluster,):
        leaves_alone(cluster, tmp_path)


def leaves_alone(cluster: local.LocalCluster, tmp_path: Path) -> None:
    """Bring another cluster up and down."""
    printed = json.loads(airflow("up", "--count=1", "--num-cpus=3", home=tmp_path))
    (other,) = local.load(tmp_path / "ray_local")
    try:
        assert printed == local.connections([other])
        assert not set(other.ports) & set(cluster.ports)
        assert ask(cluster) == [f"{head.NODE_IP}:{cluster.ports.block}", "1", "2.0"]
        assert ask(other) == [f"{head.NODE_IP}:{other.ports.block}", "1", "3.0"]
        assert [row["state"] for row in json.loads(airflow("status", "--output=json", home=tmp_path))] == ["running"]
    finally:
        airflow("down", home=tmp_path)
    assert not head.processes([other])
    assert not Path(other.temp_dir).exists()
    assert_freed(other)
    assert ask(cluster)[0] == f"{head.NODE_IP}:{cluster.ports.block}"


def test_trial_job_leaves_no_record_and_down_finds_what_outlived_the_head(tmp_path: Path) -> None:
    (cluster,) = local.up(1, tmp_path)
    try:
        assert records(cluster) == []
        assert cluster.pid is not None
        psutil.Process(cluster.pid).kill()
        psutil.Process(cluster.pid).wait()
        assert head.processes([cluster])
        assert [state for _, state in local.status(tmp_path)] == ["head is gone"]
    finally:
        local.down(tmp_path)
    assert not head.processes([cluster])
    assert_freed(cluster)


def test_snippet_of_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = [each for each in snippets() if "local_clusters(" in each.code]
    exec(compile(snippet.code, snippet.place, "exec"), {})
    assert len(capsys.readouterr().out.split(",")) == 2


def test_head_that_ray_refuses_to_start_is_reported_with_its_log(tmp_path: Path) -> None:
    children = psutil.Process().children()
    with pytest.raises(local.LocalClusterError, match=r"(?s)ray_local_1 exited with code 1.*78643200"):
        local.up(1, tmp_path, local.LocalOptions(object_store_memory=1))
    assert psutil.Process().children() == children
    assert local.load(tmp_path) == []


def test_token_is_needed_and_told_apart() -> None:
    with local.local_clusters(1, local.LocalOptions(tokens=["a-token"])) as (cluster,):
        records(cluster)
        for token, status in (("wrong", 403), (None, 401)):
            with pytest.raises(RayAuthError) as caught:
                records(replace(cluster, token=token))
            assert caught.value.status == status


def test_ray_without_token_authentication_is_not_taken_for_a_protected_one(tmp_path: Path) -> None:
    options = local.LocalOptions(ray_executable=str(RAY_249), tokens=["a-token"])
    with pytest.raises(local.LocalClusterError, match="ray_local_1 answers without its token"):
        local.up(1, tmp_path, options)
    assert local.load(tmp_path) == []
