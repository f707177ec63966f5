"""The position in a driver's log, kept as an XCom."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_ray import log_bookmark
from airflow_provider_ray.log_bookmark import KEY, Pipe, PipedLogger, XComBookmark
from tests.lines import Lines

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


def piped(logger: Any) -> PipedLogger:
    return PipedLogger(logger, SimpleNamespace(**WHERE))


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


@pytest.fixture(autouse=True)
def pipe(monkeypatch: pytest.MonkeyPatch) -> Pipe:
    """A pipe that no other test has written to."""
    fresh = Pipe()
    monkeypatch.setattr(log_bookmark, "pipe", fresh)
    return fresh


@pytest.mark.parametrize(
    ("written", "at_most", "rounds"), [(0, 0, 0), (10, 0, 1), (50_000, 0, 13), (50_000, 40_000, 3), (10**9, 0, 64)]
)
async def test_each_request_lets_airflow_read_as_much_of_the_log(
    monkeypatch: pytest.MonkeyPatch, pipe: Pipe, written: int, at_most: int, rounds: int
) -> None:
    asked: list[dict[str, Any]] = []

    async def ask(**where: Any) -> None:
        asked.append(where)

    monkeypatch.setattr(XCom, "aget_one", staticmethod(ask))
    pipe.write(written)
    assert await bookmark().settle(at_most)
    assert asked == [{"key": KEY, **WHERE}] * rounds
    assert await bookmark().settle(at_most)
    assert len(asked) == rounds


class Supervisor:
    """Airflow's end of the pipe: reads 4096 bytes of it in each round, after it has answered one request.

    A write into a full pipe waits for it. ``lines`` are those that it has read as a whole.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._pipe = self._rest = b""
        self._requests: deque[asyncio.Future[None]] = deque()

    def log(self, _: int, event: str, /, *args: object) -> None:
        self._pipe += b" " * log_bookmark.RECORD_BYTES + (event % args).encode() + b"\n"
        while len(self._pipe) > log_bookmark.PIPE_BYTES * 0.8:
            self._read()

    async def ask(self, **_: Any) -> None:
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
        self.lines.extend(line.decode().strip() for line in read)


async def test_a_quiet_trigger_s_line_is_read_though_noisy_ones_have_filled_the_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    supervisor, chance = Supervisor(), random.Random(1)
    monkeypatch.setattr(XCom, "aget_one", staticmethod(supervisor.ask))
    serving = asyncio.create_task(supervisor.serve())

    async def log_and_end(number: int) -> None:
        noise = chance.choice([0, 0, 20])
        for _ in range(chance.randrange(5)):
            for line in range(noise):
                piped(supervisor).log(20, "%s", f"{number} noise {line} {'x' * 1500}")
            await bookmark().settle(64 * 1024)
            await asyncio.sleep(0)
        piped(supervisor).log(20, "%s", f"{number} ends")
        assert await bookmark().settle(0)
        assert f"{number} ends" in supervisor.lines

    await asyncio.gather(*(log_and_end(number) for number in range(50)))
    serving.cancel()


async def test_what_is_logged_while_airflow_answers_may_not_have_been_read(pipe: Pipe) -> None:
    async def answer() -> str:
        pipe.write(1000)
        return "answer"

    pipe.write(100)
    assert await pipe.round(answer()) == "answer"
    assert (pipe.written, pipe.read) == (1100, 100)


def test_what_airflow_makes_of_a_line_is_counted(pipe: Pipe) -> None:
    lines = Lines()
    piped(lines).log(20, "%s", "\x1b[36m" * 100)
    assert lines == ["\x1b[36m" * 100]
    assert pipe.written == log_bookmark.RECORD_BYTES + len(r"\u001b[36m") * 100 + len('["", "d", "r", "t"]')


async def test_airflow_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    async def silent(**_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(XCom, "aget_one", staticmethod(silent))
    monkeypatch.setattr(log_bookmark, "SETTLE_SECONDS", 0.1)
    pipe.write(10)
    assert not await bookmark().settle(0)


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
