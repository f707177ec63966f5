"""An Airflow API server with simulated clusters, for tests and screenshots of the page "Ray"."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.airflow_stack import AirflowStack
from tests.fake_dashboard import FakeDashboard, Job, Outcome

DAGS = Path(__file__).parent / "page_dags"
DAG_ID = "ray_page"
USERS = {"admin": "admin", "op": "op", "user": "user", "viewer": "viewer", "nobody": ""}
# Placed wherever a secret could be; nothing sent to a browser may contain it.
SECRET = "s3cret"
TOKEN = f"{SECRET}-token"
MORE = 47
HANGING = 5
_GIB = 2**30


@dataclass(frozen=True)
class Site:
    """A running API server and its simulated clusters.

    :param stack: the API server.
    :param passwords: passwords by user name.
    :param clusters: three clusters by connection id; the connections do not exist yet.
    :param run_id: a run of the Dag ``ray_page`` with jobs on the first two clusters.
    """

    stack: AirflowStack
    passwords: Mapping[str, str]
    clusters: Mapping[str, FakeDashboard]
    run_id: str


@contextmanager
def site(directory: Path, path: str = "") -> Iterator[Site]:
    """Run the API server and three clusters for the duration of a `with` block.

    :param directory: folder for all output.
    :param path: base path of Airflow.
    """
    users = ",".join(f"{name}:{role}" for name, role in USERS.items())
    environment = {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": users}
    with ExitStack() as entered:
        clusters = {name: entered.enter_context(FakeDashboard(token=TOKEN)) for name in ("gpu_lab", "office", "cloud")}
        bundles = {"page": DAGS}
        stack = AirflowStack(directory, bundles, environment, components=["api-server"], path=path)
        entered.enter_context(stack)
        for cluster in clusters.values():
            cluster.default_outcome = Outcome(ends_after=None, message=f"{SECRET}-message")
        stack.command("dags", "test", DAG_ID, environment=_in_environment(clusters))
        _furnish(clusters)
        stack.wait_until_healthy()
        generated = directory / "simple_auth_manager_passwords.json.generated"
        (run,) = stack.api.call("GET", f"dags/{DAG_ID}/dagRuns")["dag_runs"]
        yield Site(stack, json.loads(generated.read_text()), clusters, run["dag_run_id"])


@contextmanager
def connected(site: Site, connections: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Add connections for the duration of a `with` block."""
    site.stack.api.add_connections(connections)
    try:
        yield
    finally:
        for conn_id in connections:
            site.stack.api.call("DELETE", f"connections/{conn_id}")


def three(site: Site) -> dict[str, dict[str, Any]]:
    """Return connections to the three clusters."""
    labels = {"gpu_lab": {"site": "lab", "gpu": "true"}, "office": {"site": "hq"}, "cloud": {}}
    return {name: _fields(cluster, labels[name]) for name, cluster in site.clusters.items()}


@contextmanager
def fifty(site: Site) -> Iterator[dict[str, dict[str, Any]]]:
    """Run further clusters and return connections to fifty, five of which hang."""
    with ExitStack() as entered:
        silent = entered.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1000))
        connections = three(site)
        for number in range(1, MORE - HANGING + 1):
            cluster = entered.enter_context(FakeDashboard(token=TOKEN, ray_version=("2.60.0", "2.49.2")[number % 2]))
            _load(cluster, cpus=4 * (1 + number % 8), used=number % 5, jobs=number % 4, pending=number % 3 == 0)
            connections[f"edge_{number:02}"] = _fields(cluster, {"site": f"edge-{number % 6}"})
        silence = {"conn_type": "ray", "host": f"http://127.0.0.1:{silent.getsockname()[1]}", "password": TOKEN}
        connections |= {f"far_{number}": silence for number in range(1, HANGING + 1)}
        yield connections


def _fields(cluster: FakeDashboard, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a connection, with a secret wherever one is possible."""
    extra = {
        "labels": labels,
        "auth_headers": {"X-Proxy": f"{SECRET}-header"},
        "serve_token": f"{SECRET}-serve-token",
        "serve_auth_headers": {"X-Proxy": f"{SECRET}-serve-header"},
    }
    return {"conn_type": "ray", "host": cluster.url, "password": TOKEN, "extra": extra}


def _in_environment(clusters: Mapping[str, FakeDashboard]) -> dict[str, str]:
    return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(_fields(each, {})) for name, each in clusters.items()}


def _furnish(clusters: Mapping[str, FakeDashboard]) -> None:
    """Give the three clusters different resources, jobs and applications."""
    lab, office, cloud = clusters.values()
    _load(lab, cpus=32, used=26, gpus=4, gpus_used=4, custom={"fpga": 2.0}, demands=3)
    _load(office, cpus=8, used=2)
    _load(cloud, cpus=64, used=0)
    message = f"{SECRET}-deployment"
    lab.deploy("vision", "/vision", {})
    lab.deploy("tagger", "/tagger", {}, status="DEPLOY_FAILED", message=message)
    office.deploy("forecast", "/forecast", {})
    cloud.fail(501, times=1_000_000, path="/api/serve/")
    _add_job(lab, "nightly-retrain", Outcome(ends_after=None, running_after=1e9))
    _add_job(office, "ended", Outcome(status="FAILED", exit_code=1, message=message))


def _load(
    cluster: FakeDashboard,
    *,
    cpus: int,
    used: int,
    gpus: int = 0,
    gpus_used: int = 0,
    custom: Mapping[str, float] | None = None,
    demands: int = 0,
    jobs: int = 0,
    pending: bool = False,
) -> None:
    """Set the resources of a cluster, and add jobs that never end."""
    further = {name: amount for name, amount in {"GPU": gpus, **(custom or {})}.items() if amount}
    memory = {"memory": 2.0 * cpus * _GIB, "object_store_memory": 0.5 * cpus * _GIB}
    cluster.nodes[0]["resources_total"] = {"CPU": cpus, **memory, **further, "node:__internal_head__": 1.0}
    cluster.used = {"CPU": used, "GPU": gpus_used, "memory": 0.5 * used * _GIB}
    cluster.demands = [f" {{'CPU': 8.0}}: {demands}+ pending tasks/actors"] if demands else []
    for number in range(jobs):
        never = 1e9 if pending and not number else 0.0
        _add_job(cluster, f"batch-{number}", Outcome(ends_after=None, running_after=never))


def _add_job(cluster: FakeDashboard, name: str, outcome: Outcome) -> None:
    body = {
        "submission_id": name,
        "entrypoint": f"python {SECRET}.py",
        "runtime_env": {"env_vars": {"KEY": f"{SECRET}-env-var"}},
        "metadata": {"owner": f"{SECRET}-metadata"},
    }
    cluster.jobs[name] = Job(body, outcome)
