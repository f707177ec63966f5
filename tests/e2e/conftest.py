"""One real Airflow and three real Ray clusters for all end-to-end tests.

All Dag runs that need no attention are triggered at once, so that they wait for each other's jobs as little as
possible; each test then waits for its own run. Those tests, and the fan-out, are what ``make test`` runs; tests that
intervene in a run of their own, and the faults, have the marker ``full`` and are left to ``make test-all``.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ray.local import LocalCluster, LocalOptions, connections, local_clusters
from dev.airflow_stack import AirflowStack
from dev.postgres import Database, postgres
from tests.e2e.reliability import Report
from tests.e2e.runs import Run, Trigger

ROOT = Path(__file__).parents[2]
RAY249 = ROOT / ".venv-ray249/bin/ray"
# What a production scheduler does within minutes; and more tasks at a time than the demonstration has.
QUICKER = {
    "AIRFLOW__CORE__PARALLELISM": "8",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "40",
}
UNATTENDED: Mapping[str, Mapping[str, Any]] = {
    "e2e_serve": {},
    "e2e_modes": {},
    "e2e_last_words": {},
    "e2e_failing": {},
    "e2e_timeout": {},
    "e2e_mapped": {},
    "e2e_sensors": {},
    "e2e_templated": {"cluster": "ray_local_3"},
    "e2e_bad_connections": {},
    "e2e_clusters": {},
    "e2e_items": {},
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--chaos", default=False):
        left_out = [item for item in items if item.get_closest_marker("chaos")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(600))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos", action="store_true", help="also the faults that take minutes each")
    parser.addoption("--reliability-table", type=Path, help="where to write the table of faults")


@pytest.fixture(scope="package")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    """The table of faults."""
    collected = Report()
    yield collected
    path = request.config.getoption("--reliability-table", default=None)
    if path and not request.session.testsfailed:
        collected.write(path)


@pytest.fixture(scope="package")
def clusters(request: pytest.FixtureRequest) -> Iterator[list[LocalCluster]]:
    """Parts of one system that differ: in authentication, in size and, with tests marked ``full``, in release."""
    full = any(item.get_closest_marker("full") for item in request.session.items)
    kinds = [
        LocalOptions(),
        LocalOptions(ray_executable=str(RAY249)) if full else LocalOptions(),
        LocalOptions(num_cpus=4, tokens=[secrets.token_hex(16)]),
    ]
    with ExitStack() as running:
        started = [running.enter_context(local_clusters(1, each))[0] for each in kinds]
        yield [replace(cluster, name=f"ray_local_{number}") for number, cluster in enumerate(started, start=1)]


@pytest.fixture(scope="package")
def database() -> Iterator[Database]:
    """What Airflow keeps its state in."""
    with postgres() as made:
        yield made


@pytest.fixture(scope="package")
def airflow(
    clusters: list[LocalCluster], database: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowStack]:
    """An Airflow whose environment names the first cluster in every variable that Ray's own client obeys."""
    bundles = {"dags": ROOT / "dags", "e2e": Path(__file__).parent / "dags"}
    first = clusters[0].url
    environment = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.sqlalchemy,
        "RAY_ADDRESS": first,
        "RAY_API_SERVER_ADDRESS": first,
        "RAY_AUTH_TOKEN": "of-another-cluster",
    }
    stack = AirflowStack(tmp_path_factory.mktemp("airflow"), bundles, {**environment, **QUICKER})
    with stack:
        stack.wait_until_healthy()
        stack.api.add_connections({**connections(clusters), **bad_connections(clusters, stack), **labelled(clusters)})
        variable = {"key": "ray_clusters", "value": json.dumps(["labelled", "labelled_too", "ray_local_1"])}
        stack.api.call("POST", "variables", json=variable)
        stack.api.call("POST", "pools", json={"name": "single", "slots": 1})
        stack.wait_for_dags([*UNATTENDED, "ray_processing_fan_out", "ray_processing_take_over", "e2e_faults_many"])
        yield stack


def bad_connections(clusters: list[LocalCluster], airflow: AirflowStack) -> dict[str, dict[str, Any]]:
    protected = clusters[2].ports.dashboard
    return {
        "not_ray": {"conn_type": "http", "host": "127.0.0.1", "port": clusters[0].ports.dashboard},
        "not_a_dashboard": {"conn_type": "ray", "host": airflow.url},
        "wrong_token": {"conn_type": "ray", "host": "127.0.0.1", "port": protected, "password": "wrong-token"},
    }


def labelled(clusters: list[LocalCluster]) -> dict[str, dict[str, Any]]:
    """The first and the third cluster under other names."""
    named = {"labelled": clusters[0], "labelled_too": clusters[2]}
    known = connections(clusters)
    return {
        conn_id: {**known[cluster.name], "extra": {"labels": {"place": "e2e"}}} for conn_id, cluster in named.items()
    }


@pytest.fixture(scope="package")
def trigger(airflow: AirflowStack) -> Trigger:
    """Start a run of a Dag."""

    def start(dag_id: str) -> Run:
        return Run(airflow.api, dag_id, airflow.api.trigger(dag_id))

    return start


@pytest.fixture(scope="package")
def runs(airflow: AirflowStack, clusters: list[LocalCluster]) -> dict[str, Run]:
    """The runs that need no attention, by their Dags."""
    confs = {**UNATTENDED, "e2e_serve": {"port": clusters[2].serve_port}}
    return {dag_id: Run(airflow.api, dag_id, airflow.api.trigger(dag_id, conf)) for dag_id, conf in confs.items()}
