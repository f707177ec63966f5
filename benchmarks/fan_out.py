"""The same work over one, two and three clusters: the fan-out against connecting to one cluster after the other.

The work sleeps instead of computing, since the clusters share the CPUs of one host here.
"""

from __future__ import annotations

import json
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

TASKS = 48
TASK_SECONDS = 2.0
CLUSTERS = 3
DAG_ID = "fan_out_benchmark"
# With Airflow on the same host Ray Client's server may need longer than the half minute that it is given.
PATIENT = {"RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "120"}
# What a driver in the main cluster does that uses Ray Client: one address after the other.
SEQUENTIAL = """
import json, sys, time
import ray

def work(seconds):
    time.sleep(seconds)

for address, number, seconds in json.loads(sys.argv[1]):
    ray.init(address, log_to_driver=False)
    remote = ray.remote(work)
    ray.get([remote.remote(seconds) for _ in range(number)])
    ray.shutdown()
"""


def measure() -> dict[str, Any]:
    """Wall seconds by number of clusters: both ways, their ratio, and what Airflow adds to the longest job."""
    from airflow_provider_ray.local import LocalOptions, connections, local_clusters
    from dev.airflow_stack import AirflowStack
    from dev.postgres import postgres

    with (
        tempfile.TemporaryDirectory() as home,
        local_clusters(CLUSTERS, LocalOptions(env=PATIENT)) as clusters,
        postgres() as database,
        AirflowStack(
            Path(home),
            {"benchmark": Path(__file__).parent / "dags"},
            {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.sqlalchemy},
        ) as airflow,
    ):
        airflow.wait_until_healthy()
        airflow.api.add_connections(connections(clusters))
        airflow.wait_for_dags([DAG_ID])
        # The first job on a cluster, and the first run of a Dag, pay for what the others find ready.
        _fan_out(airflow, clusters)
        _sequential(clusters)
        rows = {}
        for number in range(1, CLUSTERS + 1):
            ours, longest = _fan_out(airflow, clusters[:number])
            theirs = _sequential(clusters[:number])
            rows[f"{number} clusters"] = {
                "fan-out, s": round(ours, 1),
                "one after the other, s": round(theirs, 1),
                "ratio": round(theirs / ours, 2),
                "longest job of the fan-out, s": round(longest, 1),
                "added by Airflow, s": round(ours - longest, 1),
            }
    return rows


def _fan_out(airflow: Any, clusters: list[Any]) -> tuple[float, float]:
    conf = {"clusters": [cluster.name for cluster in clusters], "tasks": TASKS, "seconds": TASK_SECONDS}
    run_id = airflow.api.trigger(DAG_ID, conf)
    while (run := airflow.api.run(DAG_ID, run_id))["state"] in ("queued", "running"):
        time.sleep(0.5)
    if run["state"] != "success":
        raise RuntimeError(f"The run {run_id} is {run['state']}, which is no measurement.")
    merged = airflow.api.xcom(DAG_ID, run_id, "fan_out.merge")
    start, end = (datetime.fromisoformat(run[key]) for key in ("start_date", "end_date"))
    return (end - start).total_seconds(), max(result["seconds"] for result in merged.values())


def _sequential(clusters: list[Any]) -> float:
    """From the submission to the main cluster until the driver's end."""
    from airflow_provider_ray.client.api.job_spec import JobSpec, command
    from airflow_provider_ray.client.api.ray_client import RayClient
    from airflow_provider_ray.client.config import ClusterConfig
    from airflow_provider_ray.client.jobs.submission import submit
    from airflow_provider_ray.client.jobs.waiting import wait_for_job
    from airflow_provider_ray.client.states import SUCCEEDED
    from airflow_provider_ray.client.sync import run_sync
    from airflow_provider_ray.local.head import NODE_IP
    from airflow_provider_ray.local.ports import SERVICES

    client_port = SERVICES.index("ray-client-server-port")
    each = TASKS // len(clusters)
    places = [(f"ray://{NODE_IP}:{cluster.ports.block + client_port}", each, TASK_SECONDS) for cluster in clusters]
    name = f"sequential-{len(clusters)}-{time.time_ns()}"
    spec = JobSpec(entrypoint=command(["python", "-c", SEQUENTIAL], places), submission_id=name)

    async def run() -> Any:
        async with RayClient(ClusterConfig(url=clusters[0].url)) as client:
            await submit(client, spec)
            return await wait_for_job(client, name, poll_interval=0.5, timeout=600)

    started = time.monotonic()
    job = run_sync(run)
    if job.status != SUCCEEDED:
        raise RuntimeError(f"The driver that goes from cluster to cluster ended: {json.dumps(job.to_json())}")
    return time.monotonic() - started
