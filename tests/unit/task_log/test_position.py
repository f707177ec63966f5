"""The position in a driver's log, kept as an XCom."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.xcom import XCom
from structlog.contextvars import bound_contextvars

from airflow_provider_ray.task_log import position
from airflow_provider_ray.task_log.drain import LogPipe
from airflow_provider_ray.task_log.position import KEY, XComBookmark

pytestmark = pytest.mark.anyio

WHERE = {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": 2}


@pytest.fixture(autouse=True)
def pipe(monkeypatch: pytest.MonkeyPatch) -> LogPipe:
    """A count that knows of no other test, with Linux's default size of the pipe."""
    fresh = LogPipe(capacity=532_480)
    monkeypatch.setattr(position, "pipe", fresh)
    return fresh


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


@pytest.mark.parametrize(
    ("written", "at_most", "rounds"), [(0, 0, 0), (10, 0, 1), (50_000, 0, 13), (50_000, 40_000, 3), (10**9, 0, 130)]
)
async def test_each_request_lets_airflow_read_as_much_of_the_log(
    monkeypatch: pytest.MonkeyPatch, pipe: LogPipe, written: int, at_most: int, rounds: int
) -> None:
    asked: list[dict[str, Any]] = []

    async def ask(**where: Any) -> None:
        asked.append(where)

    monkeypatch.setattr(XCom, "aget_one", staticmethod(ask))
    pipe.add(written)
    assert await bookmark().settle(at_most)
    assert asked == [{"key": KEY, **WHERE}] * rounds
    assert await bookmark().settle(at_most)
    assert len(asked) == rounds


# As Airflow 3.3.2 writes it.
RECORD = {
    "timestamp": "2026-11-22T03:05:45.132880Z",
    "level": "warning",
    "ti_id": "01a20136-96e7-7643-b35e-a3cdd1582468",
    "try_number": 1,
    "trigger_id": 123456,
    "logger": "airflow_provider_ray.triggers.job.RayJobTrigger",
    "filename": "log_pipe.py",
    "lineno": 100,
    **WHERE,
}


# The most that one of Linux's default size has been seen to hold.
PIPE_BYTES = 237_000


class Supervisor(logging.Handler):
    """Airflow's end of the pipe: reads 4096 bytes of it in each round, after it has answered one request.

    A write into a full pipe waits for it. ``lines`` are those that it has read as a whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0
        self.lines: list[str] = []
        self._pipe = self._rest = b""
        self._requests: deque[asyncio.Future[None]] = deque()

    def emit(self, record: logging.LogRecord) -> None:
        self._pipe += json.dumps({**RECORD, "event": record.getMessage()}).encode() + b"\n"
        while len(self._pipe) > PIPE_BYTES:
            self._read()

    async def ask(self, **_: Any) -> None:
        self.requests += 1
        self._requests.append(asyncio.get_running_loop().create_future())
        await self._requests[-1]

    async def serve(self) -> None:
        while True:
            await asyncio.sleep(0)
            if self._requests:
                self._requests.popleft().set_result(None)
                self._read()

    def _read(self) -> None:
        *read, self._rest = (self._rest + self._pipe[:4096]).split(b"\n")
        self._pipe = self._pipe[4096:]
        self.lines.extend(json.loads(line)["event"] for line in read)


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """What answers requests for the position."""
    supervisor = Supervisor()
    monkeypatch.setattr(XCom, "aget_one", staticmethod(supervisor.ask))
    return supervisor


@pytest.fixture
def log(supervisor: Supervisor, pipe: LogPipe) -> Iterator[logging.Logger]:
    """What leads to the supervisor and is counted."""
    log = logging.getLogger("tests.pipe")
    log.setLevel(logging.INFO)
    for handler in (pipe, supervisor):
        log.addHandler(handler)
    with bound_contextvars(**WHERE):
        yield log
    for handler in (supervisor, pipe):
        log.removeHandler(handler)


async def test_a_quiet_trigger_s_line_is_read_though_noisy_ones_have_filled_the_pipe(
    supervisor: Supervisor, log: logging.Logger
) -> None:
    chance = random.Random(1)
    serving = asyncio.create_task(supervisor.serve())

    async def log_and_end(number: int) -> None:
        noise = chance.choice([0, 0, 20])
        for _ in range(chance.randrange(5)):
            for line in range(noise):
                log.info("%s", f"{number} noise {line} {'x' * 1500}")
            await bookmark().settle(64 * 1024)
            await asyncio.sleep(0)
        log.info("%s", f"{number} ends")
        assert await bookmark().settle(0)
        assert f"{number} ends" in supervisor.lines

    await asyncio.gather(*(log_and_end(number) for number in range(50)))
    serving.cancel()


async def test_many_who_end_together_ask_no_more_often_than_it_takes(
    supervisor: Supervisor, log: logging.Logger
) -> None:
    serving = asyncio.create_task(supervisor.serve())
    for number in range(100):
        log.info("%s", f"{number} ends")
    assert all(await asyncio.gather(*(bookmark().settle(0) for _ in range(100))))
    assert {f"{number} ends" for number in range(100)} == set(supervisor.lines)
    assert supervisor.requests < 20
    serving.cancel()


async def test_airflow_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch, pipe: LogPipe) -> None:
    async def silent(**_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(XCom, "aget_one", staticmethod(silent))
    monkeypatch.setattr(position, "SETTLE_SECONDS", 0.1)
    pipe.add(10)
    assert not await bookmark().settle(0)


async def test_what_another_has_had_taken_is_certain_all_the_same(
    monkeypatch: pytest.MonkeyPatch, pipe: LogPipe
) -> None:
    async def fails(**_: Any) -> None:
        await pipe.during(asyncio.sleep(0))
        raise ConnectionError

    monkeypatch.setattr(XCom, "aget_one", staticmethod(fails))
    pipe.add(10)
    assert await bookmark().settle(0)


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
