"""Airflow without a database: connections from the environment, a context made of plain values."""

from __future__ import annotations

import base64
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

# Airflow reads these when it is imported.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-")
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__FERNET_KEY"] = base64.urlsafe_b64encode(os.urandom(32)).decode()

import pytest
import structlog

from airflow_provider_ray.client import pacing
from airflow_provider_ray.hooks import options
from tests.fake_dashboard import FakeDashboard
from tests.unit.airflow_log import AirflowLog, installed


class Store(dict[str, Any]):
    """The task state store of one task instance: it outlives attempts, and only takes what Airflow's takes."""

    def set(self, key: str, value: Any) -> None:
        from airflow.sdk.execution_time.comms import SetTaskStateStore

        message = SetTaskStateStore(ti_id=uuid4(), key=key, value=value, expires_at=None)
        self[key] = json.loads(message.model_dump_json())["value"]


class TaskInstance:
    """What operators use of a task instance."""

    dag_id = "my dag"
    run_id = "manual__2026-01-01T00:00:00+00:00"
    task_id = "group.submit"

    def __init__(self, try_number: int = 1, max_tries: int = 1, map_index: int = -1) -> None:
        self.try_number = try_number
        self.max_tries = max_tries
        self.map_index = map_index
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


class Attempts:
    """Contexts of successive attempts of one task instance."""

    def __init__(self) -> None:
        self.store = Store()

    def context(self, **ti: Any) -> Any:
        return {"ti": TaskInstance(**ti), "task_state_store": self.store, "params": {}}


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


@pytest.fixture
def context(attempts: Attempts) -> Any:
    return attempts.context()


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDashboard]:
    """A fake cluster behind the connections ray_default and fake."""
    with FakeDashboard() as fake:
        for conn_id in ("ray_default", "fake"):
            connect(monkeypatch, conn_id, fake)
        yield fake


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, FakeDashboard]]:
    """Three fake clusters by connection id; their faults cost seconds, not minutes."""
    monkeypatch.setattr(pacing, "FAULT_BUDGET_SECONDS", 0.2)
    monkeypatch.setattr(pacing, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(pacing, "SECOND_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(pacing, "EARLIER_JOBS_SECONDS", 1.0)
    monkeypatch.setattr(pacing, "HICCUP_SECONDS", 0.2)
    monkeypatch.setattr(pacing, "STOP_CONFIRM_SECONDS", 2.0)
    monkeypatch.setattr(pacing, "LOST_STOP_SECONDS", 1.0)
    monkeypatch.setattr(pacing, "LAST_STOP_SECONDS", 1.0)
    monkeypatch.setattr(pacing, "EARLIEST_EVENT_SECONDS", 0.1)
    with FakeDashboard() as first, FakeDashboard() as second, FakeDashboard() as third:
        fakes = {"a": first, "b": second, "c": third}
        for conn_id, fake in fakes.items():
            connect(monkeypatch, conn_id, fake)
        yield fakes


class TaskLog:
    """Lines that operators and triggers log."""

    def __init__(self, entries: list[Any]) -> None:
        self._entries = entries

    @property
    def lines(self) -> list[str]:
        return [entry["event"] for entry in self._entries]


@pytest.fixture
def task_log() -> Iterator[TaskLog]:
    """Tasks and triggers log through structlog, modules through the standard library."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            entries.append({"event": record.getMessage()})

    handler = Handler()
    package = logging.getLogger("airflow_provider_ray")
    with structlog.testing.capture_logs() as entries:
        package.addHandler(handler)
        yield TaskLog(entries)
        package.removeHandler(handler)


def connect(monkeypatch: pytest.MonkeyPatch, conn_id: str, fake: FakeDashboard, **fields: Any) -> None:
    """Make a connection of type ray to a fake cluster."""
    extra = {"serve_url": fake.serve_url, **fields.pop("extra", {})}
    connection = {"conn_type": "ray", "host": fake.url, "extra": extra, **fields}
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))


@pytest.fixture(autouse=True)
def another_airflow() -> None:
    """Each test may give its Airflow another name, which is read once per process."""
    options.installation.cache_clear()


@pytest.fixture(autouse=True)
def misleading_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray's own client would obey."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "somebody-elses-token")


@pytest.fixture
def airflow_log() -> Iterator[AirflowLog]:
    """The log of a triggerer."""
    with installed() as log:
        yield log
