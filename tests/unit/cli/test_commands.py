"""`airflow ray local ...` as Airflow's own parser sees it; the real start of clusters is in tests/ray."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from airflow.cli import cli_parser
from airflow.models.connection import Connection
from airflow.secrets.local_filesystem import load_connections_dict

from airflow_provider_ray import local
from airflow_provider_ray.cli import commands
from airflow_provider_ray.local.ports import Ports

CLUSTERS = [
    local.LocalCluster("ray_local_1", Ports(8301, 8401, 21100), "none-1", "/nonexistent", "/nonexistent.log"),
    local.LocalCluster(
        "ray_local_2", Ports(8302, 8402, 21200), "none-2", "/nonexistent", "/nonexistent.log", token="it's $HOME"
    ),
]


def run(*words: str) -> None:
    args: Namespace = cli_parser.get_parser().parse_args(["ray", "local", *words])
    args.func(args)


@pytest.fixture
def directory(tmp_path: Path) -> str:
    local._save(tmp_path, CLUSTERS)
    return str(tmp_path)


def test_defaults_of_up() -> None:
    args = cli_parser.get_parser().parse_args(["ray", "local", "up"])
    assert (args.count, args.num_cpus, args.token, args.format, args.dir) == (3, 2, False, "json", None)


def test_status_is_a_table_of_connections(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("status", "--dir", directory, "--output", "json")
    rows = json.loads(capsys.readouterr().out)
    assert [(row["conn_id"], row["state"]) for row in rows] == [
        ("ray_local_1", "stopped"),
        ("ray_local_2", "stopped"),
    ]
    assert rows[1]["serve_url"] == "http://127.0.0.1:8402"
    assert "it's" not in str(rows)


def test_down_says_what_it_did(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("down", "--dir", directory)
    run("down", "--dir", directory)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        "ray_local_1 stopped",
        "ray_local_2 stopped",
        f"No clusters found in {directory}",
    ]


def test_failed_start_ends_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(SystemExit, match="Ray is not installed"):
        run("up", "--dir", str(tmp_path))


def test_json_is_what_airflow_imports(tmp_path: Path) -> None:
    path = tmp_path / "connections.json"
    path.write_text(commands._as_json(CLUSTERS))
    check(load_connections_dict(str(path)))


def test_env_survives_a_shell(tmp_path: Path) -> None:
    script = f"{commands._as_shell(CLUSTERS)}\nenv -0"
    shell = subprocess.run(["sh", "-c", script], capture_output=True, check=True, text=True, env={"HOME": "/x"})
    found = dict(line.split("=", 1) for line in shell.stdout.split("\0") if line)
    prefix = "AIRFLOW_CONN_"
    check(
        {
            name.removeprefix(prefix).lower(): Connection.from_json(value)
            for name, value in found.items()
            if name.startswith(prefix)
        }
    )


def check(connections: dict[str, Connection]) -> None:
    assert list(connections) == ["ray_local_1", "ray_local_2"]
    first, second = connections.values()
    assert (first.conn_type, first.schema, first.host, first.port) == ("ray", "http", "127.0.0.1", 8301)
    assert first.extra_dejson == {"serve_url": "http://127.0.0.1:8401"}
    assert first.password is None
    assert second.password == "it's $HOME"


def test_definition_loads_neither_the_commands_nor_the_clusters() -> None:
    code = (
        "import sys, airflow_provider_ray.cli.definition as d; d.get_cli_commands();"
        "print([m for m in sys.modules if m in ('aiohttp', 'ray')"
        " or m.startswith(('airflow_provider_ray.local', 'airflow_provider_ray.cli.commands'))])"
    )
    python = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert python.stdout.splitlines()[-1] == "[]"
