"""The demonstration's command line: what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_ray import local
from dev import airflow_processes, airflow_stack

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]


def demo(out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dev.demo", "--out", str(out), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ("{amount: 3}", "CONF is not JSON"),
        ("[1013]", "CONF is a JSON list; expected an object"),
        ('{"amuont": 3}', "CONF has unknown params: amuont; the Dag has clusters, amount"),
        ('{"amount": "3"}', "CONF, param amount: '3' is not of type 'integer'"),
        ('{"clusters": []}', "CONF, param clusters: [] should be non-empty"),
    ],
)
def test_a_conf_that_cannot_work_starts_nothing(tmp_path: Path, conf: str, reason: str) -> None:
    with demo(tmp_path / "out", "run", "--conf", conf) as process:
        printed, complaint = process.communicate(timeout=120)
    assert process.returncode == 2
    assert printed == ""
    assert reason in complaint
    assert "Traceback" not in complaint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demonstration_that_is_ended_leaves_nothing_running(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    directory = tmp_path / "demo"
    with demo(tmp_path, "run") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith("Starting 3 Ray clusters") for line in lines)
        assert len(airflow_processes.processes(directory / "airflow")) >= len(airflow_stack.COMPONENTS)
        process.send_signal(number)
        process.communicate(timeout=120)
    assert process.returncode == code
    assert airflow_processes.processes(directory / "airflow") == []
    assert local.load(directory / "ray") == []


@pytest.mark.timeout(900)
def test_what_stays_up_can_be_used_from_another_shell(tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int | None, str]:
        with demo(tmp_path, *arguments) as process:
            printed, complaint = process.communicate(timeout=400)
        assert "Traceback" not in complaint
        return process.returncode, printed

    assert run("status") == (1, "Nothing is running; start it with:  make up\n")
    try:
        code, started = run("up")
        assert code == 0, started
        where = started[started.index("Airflow: ") :]
        # A second `up` starts nothing, and says the same as `status`.
        assert run("up") == run("status") == (0, where)
        assert where.count("(running)") == 3
        shell = {"AIRFLOW_HOME": str(tmp_path / "up" / "airflow"), "PATH": os.environ["PATH"]}
        listed, clusters = (
            subprocess.run(
                [sys.executable, "-m", "airflow", *words, "--output", "json"],
                env=shell,
                cwd=tmp_path,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            for words in (("dags", "list"), ("ray", "clusters"))
        )
        # Airflow prints warnings to standard output as well.
        assert {dag["dag_id"] for dag in json.loads(listed.splitlines()[-1])} >= {"ray_processing_fan_out"}
        assert [row["health"] for row in json.loads(clusters)] == ["healthy"] * 3
    finally:
        code, stopped = run("down")
    assert "up: stopped" in stopped
    assert run("status")[0] == 1
