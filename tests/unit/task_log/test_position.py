"""The position in a driver log, kept as an XCom."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_ray.client import pacing
from airflow_provider_ray.task_log.position import KEY, XComPosition
from tests.unit.airflow_log import AirflowLog

pytestmark = pytest.mark.anyio

WHERE = {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": 2}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Airflow keeps, by key and task."""
    values: dict[str, Any] = {}

    async def put(*, key: str, value: Any, **where: Any) -> None:
        values[str((key, sorted(where.items())))] = value

    async def get(*, key: str, **where: Any) -> Any:
        return values.get(str((key, sorted(where.items()))))

    monkeypatch.setattr(XCom, "aset", staticmethod(put))
    monkeypatch.setattr(XCom, "aget_one", staticmethod(get))
    return values


def keeper(**other: Any) -> XComPosition:
    task_instance: Any = SimpleNamespace(**{**WHERE, **other})
    return XComPosition(task_instance)


def begin(push: Callable[..., None]) -> None:
    context: Any = {"ti": SimpleNamespace(xcom_push=push)}
    XComPosition.begin(context)


async def test_it_is_found_by_the_same_task_and_job_alone(kept: dict[str, Any]) -> None:
    assert await keeper().find("j1") == 0
    await keeper().put("j1", 12)
    assert await keeper().find("j1") == 12
    assert await keeper().find("j2") == 0
    assert await keeper(map_index=3).find("j1") == 0
    assert kept == {str((KEY, sorted(WHERE.items()))): {"submission_id": "j1", "bytes": 12}}


async def test_nothing_is_delivered_in_the_beginning(kept: dict[str, Any]) -> None:
    def push(key: str, value: Any) -> None:
        kept[str((key, sorted(WHERE.items())))] = value

    begin(push)
    assert len(kept) == 1
    assert await keeper().find("j1") == 0


async def test_airflow_that_does_not_read_holds_nobody_up(
    airflow_log: AirflowLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "LOG_DRAIN_SECONDS", 0.1)
    assert await keeper().has_read(0)
    airflow_log.write(b"a line\n")
    assert not await keeper().has_read(0)


async def test_with_remote_logs_the_whole_log_is_shown_again(
    kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await keeper().put("j1", 12)
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_LOGGING", "True")
    assert await keeper().find("j1") == 0


async def test_a_fault_of_airflow_costs_repeated_lines_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def unreachable(**_: Any) -> None:
        raise ConnectionError("no API server")

    monkeypatch.setattr(XCom, "aset", staticmethod(unreachable))
    monkeypatch.setattr(XCom, "aget_one", staticmethod(unreachable))
    await keeper().put("j1", 12)
    assert await keeper().find("j1") == 0

    def push(**_: Any) -> None:
        raise ConnectionError("no API server")

    begin(push)
    assert caplog.text.count("no API server") == 3
