"""Which connections there are, and which of them a selector means."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from airflow import settings
from airflow.models.base import Base
from airflow.models.connection import Connection
from airflow.models.team import Team
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.clusters import discovery

SECRET = "s3cr3t-value"


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections of a worker: in JSON and as URI, some of other types."""
    hpc = {"conn_type": "ray", "host": "hpc", "extra": {"labels": {"site": "hpc", "gpu": "true"}}}
    cloud = {"conn_type": "ray", "host": "cloud", "extra": {"labels": "site=cloud,gpu=true", "max_jobs": "none"}}
    given = {
        "HPC": json.dumps(hpc),
        "CLOUD": f" {json.dumps(cloud)}",
        "LAB": f"ray://:{SECRET}@lab:8265/?labels=site%3Dlab",
        "DATABASE": f"postgresql://user:{SECRET}@ray/ray",
        "WEB": json.dumps({"conn_type": "http", "host": "ray"}),
    }
    for name, value in given.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", value)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Airflow's database, as much of it as is read here, with connections of several types."""
    tables = [Base.metadata.tables[model.__tablename__] for model in (Connection, Team, Variable)]
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    Base.metadata.create_all(settings.engine, tables=tables)
    with create_session() as session:
        session.add(Connection(conn_id="stored", conn_type="ray", host="stored", extra='{"labels": "site=hpc"}'))
        session.add(Connection(conn_id="web", conn_type="http", host="web"))
    yield
    assert settings.Session is not None
    settings.Session.remove()
    Base.metadata.drop_all(settings.engine, tables=tables)


def test_connections_of_type_ray_in_the_environment() -> None:
    assert discovery.candidates() == ["cloud", "hpc", "lab"]


def test_the_variable_names_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_RAY_CLUSTERS", '["office", " lab ", "office"]')
    assert discovery.candidates() == ["cloud", "hpc", "lab", "office"]


@pytest.mark.parametrize("text", ["office", '{"a": 1}', '["a", 1]', '[""]', '"a"', "null", " "])
def test_a_variable_that_is_no_list_of_ids_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_RAY_CLUSTERS", text)
    with pytest.raises(RayConfigError, match="Airflow Variable ray_clusters: got .*expected a JSON list"):
        discovery.candidates()


def test_a_broken_connection_of_an_unknown_type_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", f'{{"conn_type": "ray", "password": "{SECRET}",}}')
    assert discovery.candidates() == ["cloud", "hpc", "lab"]
    assert [record.getMessage() for record in caplog.records] == [
        "Ignoring the environment variable AIRFLOW_CONN_BROKEN: it is not valid JSON"
    ]
    assert SECRET not in caplog.text


def test_a_selector() -> None:
    assert discovery.parse_selector(" site=hpc, gpu=true") == {"site": "hpc", "gpu": "true"}


@pytest.mark.parametrize(
    ("selector", "got"),
    [("", "nothing"), (" ", "' '"), (None, "nothing"), (7, "7"), ("site", "'site'"), ("a=1,a=2", "'a' twice")],
)
def test_what_is_no_selector_is_named(selector: Any, got: str) -> None:
    with pytest.raises(RayConfigError, match="^selector: got ") as caught:
        discovery.parse_selector(selector)
    assert caught.value.got == got


@pytest.mark.parametrize(
    ("selector", "chosen"), [("gpu=true", ["cloud", "hpc"]), ("gpu=true,site=hpc", ["hpc"]), ("site=lab", ["lab"])]
)
def test_all_labels_must_be_there(selector: str, chosen: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Also where another field cannot work, as max_jobs of ``cloud``: that comes to light where it is used."""
    with caplog.at_level(logging.DEBUG):
        assert discovery.select(selector) == chosen
    assert SECRET not in caplog.text


def test_connections_to_choose_from(monkeypatch: pytest.MonkeyPatch) -> None:
    assert discovery.select("gpu=true", ["hpc", "lab"]) == ["hpc"]


def test_a_selector_that_none_has_names_those_looked_at() -> None:
    with pytest.raises(RayConfigError) as caught:
        discovery.select("site=hpc,gpu=false")
    assert caught.value.field == "clusters"
    assert "'site=hpc,gpu=false', which matches none of ['cloud', 'hpc', 'lab']" in str(caught.value)
    assert "Airflow Variable ray_clusters" in str(caught.value)
    assert "cannot be read" not in str(caught.value)


def test_labels_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_RAY_CLUSTERS", '["gone", "web"]')
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps({"conn_type": "ray", "extra": {"labels": {"gpu": True}}}))
    assert discovery.select("site=hpc") == ["hpc"]
    told = [record.getMessage() for record in caplog.records if record.name == discovery.__name__]
    assert [line.partition(": its labels cannot be read: ")[0] for line in told] == [
        f"Skipping the connection '{conn_id}'" for conn_id in ("gone", "odd", "web")
    ]
    assert "connection 'odd', labels: got True of type bool" in told[1]
    with pytest.raises(RayConfigError, match=r"the labels of \['gone', 'odd', 'web'\] cannot be read, see the log"):
        discovery.select("site=nowhere")


def test_the_database_adds_its_connections(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with create_session() as session:
        Variable.set("ray_clusters", '["office"]', session=session)
    assert discovery.all_conn_ids() == ["cloud", "hpc", "lab", "office", "stored"]
    assert discovery.select("site=hpc", discovery.all_conn_ids()) == ["hpc", "stored"]


def test_a_database_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(SQLAlchemyError):
        discovery.all_conn_ids()


@pytest.mark.parametrize(
    "value",
    [
        json.dumps({"conn_type": "ray", "host": "x", "extra": [1]}),
        json.dumps({"conn_type": "ray", "host": "x", "extra": "[1]"}),
        json.dumps({"conn_type": "ray", "host": "x", "extra": "7"}),
        json.dumps({"conn_type": "ray", "host": "x", "extra": '"text"'}),
        json.dumps({"conn_type": "ray", "host": "x", "extra": "true"}),
        json.dumps({"conn_type": "ray", "host": "x", "extra": '{"labels": '}),
        json.dumps({"conn_type": "ray", "host": "x", "extra": "[" * 100_000}),
        json.dumps({"conn_type": "ray", "host": "x", "extra": {"labels": [1]}}),
        json.dumps({"conn_type": "ray", "host": "x", "port": "abc"}),
        json.dumps({"conn_type": "ray", "host": "x", "unknown": 1}),
        "ray://x:port/?labels=site%3Dhpc",
        "ray://x/?__extra__=%5B1%5D",
        '{"conn_type": "ray", "extra": ' + "[" * 100_000,
    ],
)
def test_a_connection_that_is_broken_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", value)
    assert discovery.select("site=hpc") == ["hpc"]
    assert "broken" in caplog.text.lower()
