"""`airflow ray jobs clean` as Airflow's own parser sees it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from airflow.cli import cli_parser

from airflow_provider_ray.client.jobs.submission import INSTALLATION_KEY, NONCE_KEY
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.fake_dashboard.state import Job
from tests.unit.conftest import connect

DAY = 86_400.0
OURS = {NONCE_KEY: "n", INSTALLATION_KEY: "prod"}


@pytest.fixture(autouse=True)
def process_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command declares its process one of the server's; that must not outlive a test."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")


@pytest.fixture
def hpc(monkeypatch: pytest.MonkeyPatch, fake: FakeDashboard) -> FakeDashboard:
    """A cluster with jobs that ended 1 to 5 days ago."""
    monkeypatch.setenv("AIRFLOW__RAY__INSTALLATION", "prod")
    connect(monkeypatch, "hpc", fake, extra={"labels": {"site": "hpc"}})
    for days in range(1, 6):
        age = days * DAY + 60
        body = {"entrypoint": "true", "submission_id": f"j{days}", "metadata": OURS}
        submitted_ms = int((time.time() - age) * 1000)
        fake.jobs[f"j{days}"] = Job(body, Outcome(), submitted=time.monotonic() - age, submitted_ms=submitted_ms)
    return fake


def clean(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    args = cli_parser.get_parser().parse_args(["ray", "jobs", "clean", "--output", "json", *words])
    try:
        args.func(args)
    finally:
        out = capsys.readouterr().out
    rows: list[dict[str, Any]] = json.loads(out)
    return rows


def test_a_dry_run_counts(hpc: FakeDashboard, capsys: pytest.CaptureFixture[str]) -> None:
    rows = clean(capsys, "--older-than", "3d", "--conn-id", "hpc", "--dry-run")
    assert rows == [{"conn_id": "hpc", "would be deleted": "3", "fault": ""}]
    assert len(hpc.jobs) == 5


@pytest.mark.parametrize("which", [("--conn-id", "hpc"), ("--selector", "site=hpc")])
def test_old_records_are_deleted(
    hpc: FakeDashboard, capsys: pytest.CaptureFixture[str], which: tuple[str, str]
) -> None:
    assert clean(capsys, "--older-than", "72h", *which) == [{"conn_id": "hpc", "deleted": "3", "fault": ""}]
    assert set(hpc.jobs) == {"j1", "j2"}


@pytest.mark.parametrize("age", ["", "7", "0d", "0h", "23h", "30m", "-1d", "1.5d", "d", "a week"])
def test_an_age_that_is_none_is_refused(hpc: FakeDashboard, capsys: pytest.CaptureFixture[str], age: str) -> None:
    with pytest.raises(SystemExit, match="--older-than.*such as 7d"):
        clean(capsys, f"--older-than={age}", "--conn-id", "hpc")
    assert not hpc.requests


def test_clusters_have_to_be_named(hpc: FakeDashboard, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="--conn-id and --selector"):
        clean(capsys, "--older-than", "7d")
    assert not hpc.requests


def test_a_cluster_that_cannot_be_asked_does_not_keep_others_from_it(
    hpc: FakeDashboard, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", json.dumps({"conn_type": "ray", "host": "x", "extra": [1]}))
    with pytest.raises(SystemExit, match="broken"):
        clean(capsys, "--older-than", "3d", "--conn-id", "broken", "hpc")
    assert set(hpc.jobs) == {"j1", "j2"}
