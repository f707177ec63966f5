"""`airflow ray clusters` as Airflow's own parser sees it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.cli import cli_parser
from airflow.configuration import AIRFLOW_HOME

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.clusters.health import HEAD_DEAD
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.conftest import connect


@pytest.fixture(autouse=True)
def process_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command declares its process one of the server's; that must not outlive a test."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")


@pytest.fixture
def hpc(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDashboard]:
    """A cluster with jobs."""
    with FakeDashboard(ray_version="2.49.2") as fake:
        connect(monkeypatch, "hpc", fake, extra={"labels": {"site": "hpc", "gpu": "true"}})
        fake.nodes[0]["resources_total"] |= {"GPU": 2.0, "memory": 4 * 2.0**30}
        fake.used |= {"CPU": 0.5, "memory": 2.0**30}
        yield fake


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDashboard]:
    """A cluster whose head node has died."""
    with FakeDashboard() as fake:
        connect(monkeypatch, "dead", fake, extra={"labels": "site=lab"})
        fake.nodes[0]["state"] = "DEAD"
        fake.has_status = False
        fake.fail(500, path="/api/v0/jobs", times=99)
        yield fake


def run(*words: str) -> None:
    args = cli_parser.get_parser().parse_args(["ray", "clusters", *words])
    args.func(args)


def rows(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    run("--output", "json", *words)
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_json_has_numbers_and_nulls(
    hpc: FakeDashboard, dead: FakeDashboard, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", f"ray://127.0.0.1:{free}")
    away, head_dead, alive = rows(capsys)
    assert alive == {
        "conn_id": "hpc",
        "health": "healthy",
        "ray_version": "2.49.2",
        "python_version": "3.11.2",
        "nodes": 1,
        "cpu_free": 1.5,
        "cpu_total": 2.0,
        "gpu_free": 2.0,
        "gpu_total": 2.0,
        "memory_free": 3 * 2.0**30,
        "memory_total": 4 * 2.0**30,
        "running_jobs": 0,
        "pending_jobs": 0,
        "pending_demands": 0,
        "unknown": {},
        "labels": {"site": "hpc", "gpu": "true"},
    }
    assert (head_dead["health"], head_dead["nodes"], head_dead["cpu_free"]) == ("its head node is dead", 0, 0.0)
    assert (head_dead["running_jobs"], head_dead["pending_demands"]) == (None, None)
    assert head_dead["unknown"] == {
        "usage": "Ray has not reported it yet",
        "jobs": "the cluster responded with status 500",
    }
    assert "no connection" in away["health"]
    assert {name for name, value in away.items() if value not in (None, {})} == {"conn_id", "health"}
    assert away["labels"] == {}


def test_yaml_says_the_same(hpc: FakeDashboard, capsys: pytest.CaptureFixture[str]) -> None:
    run("-o", "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == rows(capsys)


@pytest.mark.parametrize("output", ["table", "plain"])
def test_a_table_for_people(
    hpc: FakeDashboard, dead: FakeDashboard, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    hpc.default_outcome = Outcome(ends_after=None)
    run("-o", output)
    header, *lines = [line for line in capsys.readouterr().out.splitlines() if line.strip(" =+|")]
    words = [line.replace("|", " ").split() for line in lines]
    assert "CPU free" in header
    assert words == [
        ["dead", *HEAD_DEAD.split(), "2.60.0", "3.11.2", "0", "0/0", "0/0", "0/0", "?", "?", "site=lab"],
        ["hpc", "healthy", "2.49.2", "3.11.2", "1", "1.5/2", "2/2", "3/4", "0", "0", "site=hpc,gpu=true"],
    ]


def test_unknown_shows_as_such(hpc: FakeDashboard, capsys: pytest.CaptureFixture[str]) -> None:
    hpc.has_status = False
    run("-o", "plain")
    assert "?/2" in capsys.readouterr().out


def test_a_reason_with_brackets_is_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps({"conn_type": "ray", "host": "[red]a[/red]"}))
    run("-o", "table")
    assert "[red]" in capsys.readouterr().out


def test_a_cluster_that_hangs_costs_its_own_time_only(
    hpc: FakeDashboard, dead: FakeDashboard, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "ANSWER_SECONDS", 1.0)
    dead.fail("hang", path="/api/version")
    started = time.monotonic()
    hangs, alive = rows(capsys)
    assert time.monotonic() - started < 8
    assert hangs["health"] == f"{dead.url}: no complete response within 1 s"
    assert alive["health"] == "healthy"


def test_a_connection_that_cannot_work_is_a_row(
    hpc: FakeDashboard, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, "odd", hpc, extra={"verify": "no"})
    monkeypatch.setenv("AIRFLOW_VAR_RAY_CLUSTERS", '["gone"]')
    gone, alive, odd = rows(capsys)
    assert gone["health"] == "no such connection"
    assert alive["health"] == "healthy"
    assert "connection 'odd', extra: got unknown ['verify']" in odd["health"]


def test_some_connections(hpc: FakeDashboard, dead: FakeDashboard, capsys: pytest.CaptureFixture[str]) -> None:
    assert [row["conn_id"] for row in rows(capsys, "--conn-id", "hpc")] == ["hpc"]
    assert [row["conn_id"] for row in rows(capsys, "--conn-id", "hpc", "dead", "--conn-id", "hpc")] == ["dead", "hpc"]
    assert [row["conn_id"] for row in rows(capsys, "--selector", "site=lab")] == ["dead"]
    assert [row["conn_id"] for row in rows(capsys, "--conn-id", "hpc", "dead", "--selector", "gpu=true")] == ["hpc"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--conn-id", "hpc", "nowhere"), r"--conn-id: got \['nowhere'\]; expected .*\['hpc'\]"),
        (("--conn-id", "nowhere", "--selector", "gpu=true"), r"--conn-id: got \['nowhere'\]"),
        (("--selector", "site=moon"), r"clusters: got the selector 'site=moon', which matches none of \['hpc'\]"),
        (("--selector", "moon"), "selector: got 'moon'"),
        (("--selector", ""), "selector: got nothing"),
    ],
)
def test_what_there_is_not_ends_with_a_message(hpc: FakeDashboard, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        run(*words)


def test_no_clusters_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert rows(capsys) == []


def test_no_clusters_at_all_says_where_it_looked(capsys: pytest.CaptureFixture[str]) -> None:
    run()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"There is no connection of type ray in the database of {AIRFLOW_HOME}, AIRFLOW_CONN_")


def test_without_a_database(hpc: FakeDashboard, capsys: pytest.CaptureFixture[str]) -> None:
    run("-o", "json")
    output = capsys.readouterr()
    assert json.loads(output.out)[0]["health"] == "healthy"
    assert output.err.startswith("Skipping the connections in Airflow's database, which cannot be read: ")


@pytest.mark.timeout(400)
def test_as_a_command_with_and_without_a_database(hpc: FakeDashboard, tmp_path: Path) -> None:
    """The database is that of a new installation, and holds a connection of the same cluster."""
    home = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__UNIT_TEST_MODE": "False"}

    def airflow(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "airflow", *words]
        return subprocess.run(command, capture_output=True, text=True, env=home, cwd=tmp_path, check=True)

    bare = airflow("ray", "clusters", "-o", "json")
    assert [row["conn_id"] for row in json.loads(bare.stdout)] == ["hpc"]
    assert "which cannot be read" in bare.stderr
    assert "Traceback" not in bare.stderr
    airflow("db", "migrate")
    airflow("connections", "add", "stored", "--conn-type", "ray", "--conn-host", hpc.url)
    airflow("variables", "set", "ray_clusters", '["gone"]')
    full = airflow("ray", "clusters", "-o", "json")
    assert [(row["conn_id"], row["health"] == "healthy") for row in json.loads(full.stdout)] == [
        ("gone", False),
        ("hpc", True),
        ("stored", True),
    ]
    assert "cannot be read" not in full.stderr
