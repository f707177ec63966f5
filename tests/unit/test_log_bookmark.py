"""The position in a driver's log, kept as an XCom."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_ray import log_bookmark
from airflow_provider_ray.log_bookmark import KEY, XComBookmark

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


def bookmark(**other: Any) -> XComBookmark:
    return XComBookmark(SimpleNamespace(**{**WHERE, **other}))


async def test_it_is_found_by_the_same_task_and_job_alone(kept: dict[str, Any]) -> None:
    assert await bookmark().find("j1") == 0
    await bookmark().put("j1", 12)
    assert await bookmark().find("j1") == 12
    assert await bookmark().find("j2") == 0
    assert await bookmark(map_index=3).find("j1") == 0
    assert kept == {str((KEY, sorted(WHERE.items()))): {"submission_id": "j1", "bytes": 12}}


async def test_nothing_is_delivered_in_the_beginning(kept: dict[str, Any]) -> None:
    def push(key: str, value: Any) -> None:
        kept[str((key, sorted(WHERE.items())))] = value

    XComBookmark.begin({"ti": SimpleNamespace(xcom_push=push)})
    assert len(kept) == 1
    assert await bookmark().find("j1") == 0


@pytest.mark.parametrize(("written", "rounds"), [(10, 2), (50_000, 14), (10**9, 66)])
async def test_each_request_lets_airflow_read_as_much_of_the_log(
    monkeypatch: pytest.MonkeyPatch, written: int, rounds: int
) -> None:
    asked: list[dict[str, Any]] = []

    async def ask(**where: Any) -> None:
        asked.append(where)

    monkeypatch.setattr(XCom, "aget_one", staticmethod(ask))
    assert await bookmark().settle(written)
    assert asked == [{"key": KEY, **WHERE}] * rounds


async def test_airflow_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(**_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(XCom, "aget_one", staticmethod(silent))
    monkeypatch.setattr(log_bookmark, "SETTLE_SECONDS", 0.1)
    assert not await bookmark().settle(10)


async def test_with_remote_logs_the_whole_log_is_shown_again(
    kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await bookmark().put("j1", 12)
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_LOGGING", "True")
    assert await bookmark().find("j1") == 0


async def test_a_fault_of_airflow_costs_repeated_lines_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def unreachable(**_: Any) -> None:
        raise ConnectionError("no API server")

    monkeypatch.setattr(XCom, "aset", staticmethod(unreachable))
    monkeypatch.setattr(XCom, "aget_one", staticmethod(unreachable))
    await bookmark().put("j1", 12)
    assert await bookmark().find("j1") == 0

    def push(**_: Any) -> None:
        raise ConnectionError("no API server")

    XComBookmark.begin({"ti": SimpleNamespace(xcom_push=push)})
    assert caplog.text.count("no API server") == 3
