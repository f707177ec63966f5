from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_ray.client.api.job_spec import CONFIG_LIMIT_BYTES, ENTRYPOINT_LIMIT_BYTES, JobSpec, command
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.errors import (
    RayClusterUnavailable,
    RayConfigError,
    RayJobFailed,
    RayNotFound,
    RayRequestRefused,
)
from airflow_provider_ray.client.jobs.driver_log import read_log
from airflow_provider_ray.client.jobs.search import search
from airflow_provider_ray.client.jobs.submission import NONCE_KEY, find, submit
from airflow_provider_ray.client.jobs.waiting import find_job, stop_job, wait_for_job
from airflow_provider_ray.client.values import as_json
from tests.contract.conftest import Cluster, log_of, run

pytestmark = pytest.mark.anyio

AWKWARD = {
    "text": 'it\'s "quoted" $(touch never) `id` $HOME\nnew line\r\n\ttab \\n ! * ~ # ; & |',
    "Grüße, 你好": ["\U0001f600", "\u2028", "\ud800", "", None, True, 0.1, 10**20],
}
PRINT = "import json, sys; print(json.dumps(json.loads(sys.argv[1]))); sys.exit(len(sys.argv) - 2)"


async def test_the_life_of_a_job(cluster: Cluster, client: RayClient, name: str) -> None:
    cluster.expect(
        name, log=as_json("", AWKWARD).encode() + b"\n", message="Job finished successfully.", ends_after=0.2
    )
    metadata = {NONCE_KEY: "n1", "dag": name, "é": '"quotes" $(x)\n你好'}
    entrypoint = command(["python", "-c", PRINT], AWKWARD)
    job = await run(client, name, entrypoint, metadata=metadata, runtime_env={"env_vars": {"KEY": "s3cret"}})
    assert (job.status, job.driver_exit_code, job.error_type) == ("SUCCEEDED", 0, None)
    assert (job.submission_id, job.entrypoint, job.metadata) == (name, entrypoint, metadata)
    assert job.driver_node_id == (await client.cluster.nodes())[0].node_id
    assert job.seconds is not None
    assert 0 <= job.seconds < 90
    assert "s3cret" not in repr(job)
    assert json.loads(await log_of(client, job)) == AWKWARD
    assert (await read_log(client, name)).endswith(as_json("", AWKWARD) + "\n")
    assert name in [each.submission_id for each in await client.jobs.list()]
    assert await find_job(client, {"dag": name}) == job
    assert await client.jobs.stop(name) is False
    assert (await stop_job(client, name)) == job
    await client.jobs.delete(name)
    assert await find(client, name, "n1") is None


async def test_the_largest_job_that_is_not_refused_runs(cluster: Cluster, client: RayClient, name: str) -> None:
    cluster.expect(name)
    metadata = {NONCE_KEY: "n1"}
    smallest = len(as_json("", {"runtime_env": {"env_vars": {"A": ""}}, "metadata": metadata}))
    room = CONFIG_LIMIT_BYTES - smallest
    entrypoint = f"test ${{#A}} = {room} #"
    entrypoint += "x" * (ENTRYPOINT_LIMIT_BYTES - len(entrypoint))
    job = await run(client, name, entrypoint, metadata=metadata, runtime_env={"env_vars": {"A": "a" * room}})
    assert job.status == "SUCCEEDED"


async def test_what_ray_rejects_is_told_from_its_own_failures(cluster: Cluster, client: RayClient, name: str) -> None:
    said = "Can't find conda YAML file missing.yml."
    message = f"Failed to start supervisor actor {name}: '{said}'. Full traceback:\nTraceback ...\nValueError: {said}\n"
    error_type = "JOB_SUPERVISOR_ACTOR_START_FAILURE" if cluster.ray >= (2, 50) else None
    cluster.expect(name, status="FAILED", message=message, error_type=error_type, exit_code=None)
    # This package refuses such a file before it submits anything.
    await client.jobs.submit(JobSpec(entrypoint="true", submission_id=name, runtime_env={"conda": "missing.yml"}))
    job = await wait_for_job(client, name, poll_interval=0.5, timeout=60)
    assert (job.status, job.error_type) == ("FAILED", error_type)
    assert said in str(job.message)
    assert not RayJobFailed("ray_lab", job, "failed").retry_helps


async def test_jobs_that_have_not_ended(cluster: Cluster, client: RayClient, name: str) -> None:
    cluster.expect(name, ends_after=None)
    await submit(client, JobSpec(entrypoint="sleep 60", submission_id=name, metadata={"dag": name}))
    (job,) = [each for each in await client.jobs.active() if each.submission_id == name]
    assert job.status in ("PENDING", "RUNNING")
    found = await search(client, {"dag": name}, with_session=True)
    assert [each.submission_id for each in found.jobs] == [name]
    assert found.session == (await client.cluster.version()).session_name
    assert not (await search(client, {"dag": name, "run": "other"})).jobs
    assert (job.metadata or {})["dag"] == name
    assert job.start_time_ms
    await stop_job(client, name)
    assert name not in [each.submission_id for each in await client.jobs.active()]


async def test_an_unknown_id(client: RayClient, name: str) -> None:
    for ask in (client.jobs.get, client.jobs.stop, client.jobs.delete):
        with pytest.raises(RayNotFound, match=f"404: Job {name} does not exist$"):
            await ask(name)
    assert await stop_job(client, name) is None


async def test_a_used_id(cluster: Cluster, client: RayClient, name: str) -> None:
    spec = JobSpec(entrypoint="sleep 60", submission_id=cluster.expect(name, ends_after=None), metadata={"try": "1"})
    await submit(client, spec)
    with pytest.raises(RayRequestRefused, match=rf"500: .*{name} already exists") as caught:
        await client.jobs.submit(spec)
    assert caught.value.status == 500
    with pytest.raises(RayConfigError, match="which another job on this cluster uses"):
        await submit(client, spec)
    assert [job.submission_id for job in await client.jobs.list()].count(name) == 1
    await stop_job(client, name)


async def test_a_job_that_fails(cluster: Cluster, client: RayClient, name: str) -> None:
    kind, said = "JOB_ENTRYPOINT_COMMAND_ERROR", "Job entrypoint command failed with exit code 3"
    cluster.expect(name, status="FAILED", exit_code=3, error_type=kind, message=said, log=b"bad luck\n")
    job = await run(client, name, "echo bad luck; exit 3")
    assert (job.status, job.driver_exit_code) == ("FAILED", 3)
    assert job.error_type == (kind if cluster.ray >= (2, 50) else None)
    assert said in (job.message or "")
    assert await log_of(client, job) == b"bad luck\n"


async def test_a_job_that_is_stopped(cluster: Cluster, client: RayClient, name: str) -> None:
    cluster.expect(name, ends_after=None, stop_after=0.2)
    await submit(client, JobSpec(entrypoint="sleep 300", submission_id=name))
    while (await client.jobs.get(name)).status == "PENDING":
        await asyncio.sleep(0.1)
    with pytest.raises(RayClusterUnavailable, match="500: .*non-terminal state"):
        await client.jobs.delete(name)
    job = await wait_for_job(client, name, poll_interval=0.2, timeout=0.5, owned=True)
    assert job.status == "RUNNING"
    stopped = await client.jobs.get(name)
    assert (stopped.status, stopped.driver_exit_code) == ("STOPPED", None)


async def test_a_package_that_is_gone(cluster: Cluster, client: RayClient, name: str) -> None:
    job = await run(client, name, "true", runtime_env={"working_dir": f"gcs://{name}.zip"})
    assert (job.status, job.driver_exit_code) == ("FAILED", None)
    assert job.error_type == ("RUNTIME_ENV_SETUP_FAILURE" if cluster.ray >= (2, 50) else None)
    assert f"{name}.zip" in (job.message or "")
    assert await read_log(client, name) == job.message


async def test_the_longest_entrypoint(cluster: Cluster, client: RayClient, name: str) -> None:
    cluster.expect(name, log=b"131000\n")
    text = "x" * 131000
    entrypoint = f"word={text}; echo ${{#word}} #"
    padding = "#" * (ENTRYPOINT_LIMIT_BYTES - len(entrypoint))
    job = await run(client, name, entrypoint + padding)
    assert (job.status, job.message and job.message[-200:]) == ("SUCCEEDED", "Job finished successfully.") or (
        cluster.fake is not None and job.status == "SUCCEEDED"
    )
    assert await log_of(client, job) == b"131000\n"


async def test_resources(cluster: Cluster, client: RayClient, name: str) -> None:
    options: dict[str, Any] = {
        "entrypoint_num_cpus": 0.5, "entrypoint_num_gpus": 0, "entrypoint_memory": 1000, "entrypoint_resources": {}
    }  # fmt: skip
    assert (await run(client, cluster.expect(name), "true", **options)).status == "SUCCEEDED"


async def test_a_label_selector(cluster: Cluster, client: RayClient, name: str) -> None:
    spec = JobSpec(entrypoint="true", submission_id=cluster.expect(name), entrypoint_label_selector={"zone": "a"})
    if cluster.ray < (2, 54):
        with pytest.raises(RayConfigError, match=r"^entrypoint_label_selector: .*2\.54.*2\.49\.2"):
            await submit(client, spec)
        with pytest.raises(RayRequestRefused, match="400: .*entrypoint_label_selector"):
            await client.jobs.submit(spec)
        with pytest.raises(RayNotFound):
            await client.jobs.get(name)
        return
    with pytest.raises(RayRequestRefused, match="500: ValueError: Invalid label key name"):
        await submit(client, replace(spec, entrypoint_label_selector={"a b": "c"}))
    nowhere = replace(spec, entrypoint_label_selector={"ray.io/node-id": "!in(none)"})
    await submit(client, nowhere)
    assert (await wait_for_job(client, name, poll_interval=0.5, timeout=60)).status == "SUCCEEDED"


async def test_a_request_that_is_too_large_for_the_agent_is_refused(client: RayClient, name: str) -> None:
    too_large = {"entrypoint": "true", "submission_id": name, "metadata": {"note": "x" * 1024 * 1024}}
    with pytest.raises(RayRequestRefused, match="500: "):
        await client.jobs._http.send("POST", "/api/jobs/", data=io.BytesIO(json.dumps(too_large).encode()))
    with pytest.raises(RayNotFound):
        await client.jobs.get(name)


# Not with ?, # or % in it: the head passes the id on to its agent as it is, and the agent does not find the job.
async def test_jobs_of_others_may_be_called_anything(cluster: Cluster, client: RayClient, name: str) -> None:
    for suffix in (":2026-11", " job 7", "é+b", "~;=,@"):
        foreign = name + suffix
        cluster.expect(foreign, ends_after=None)
        body = {"entrypoint": "sleep 60", "submission_id": foreign}
        await client.jobs._http.read("POST", "/api/jobs/", dict[str, str], json=body)
        assert (await client.jobs.get(foreign)).submission_id == foreign
        job = await stop_job(client, foreign)
        assert job is not None
        await client.jobs.delete(foreign)
        with pytest.raises(RayNotFound):
            await client.jobs.get(foreign)
