from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.models import JobDetails
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.jobs import driver_log
from airflow_provider_ray.client.jobs.driver_log import LINE_LIMIT_BYTES, DriverLog, last_lines, read_log
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.lines import Lines

pytestmark = pytest.mark.anyio

PATH = "/api/v0/logs/file"


async def job_with(client: RayClient, fake: FakeDashboard, log: bytes) -> JobDetails:
    fake.outcomes["j1"] = Outcome(log=log)
    await client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1"))
    return await client.jobs.get("j1")


async def delivered(client: RayClient, job: JobDetails, already: int = 0) -> list[str]:
    lines = Lines()
    log = DriverLog(client, lines)
    log.delivered = already
    await log.deliver(job, final=True)
    return lines


class EagerLog(DriverLog):
    """Reads whenever it is asked."""

    async def deliver(self, job: JobDetails, *, final: bool = False, within: float | None = None) -> None:
        self._next_read = 0.0
        await super().deliver(job, final=final, within=within)


@pytest.mark.parametrize(
    ("log", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\n\n\ntwo", ["one", "", "", "two"]),
        (b"no line break", ["no line break"]),
        (b"dos\r\nend\r\n", ["dos", "end"]),
        (b"10 %\r20 %\rdone\n", ["done"]),
        (b"10 %\r20 %\r\nnext\r", ["20 %", "next"]),
        (b"\r10 %\r20 %", ["20 %"]),
        (b"\xff bad \xc3\n", ["\ufffd bad \ufffd"]),
        ("Grüße \U0001f600\n".encode(), ["Grüße \U0001f600"]),
        (b"nul \0 and \x1b[31mcolour\n", ["nul \0 and \x1b[31mcolour"]),
    ],
)
async def test_lines(client: RayClient, fake: FakeDashboard, log: bytes, lines: Sequence[str]) -> None:
    job = await job_with(client, fake, log)
    assert await delivered(client, job) == list(lines)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
async def test_pieces_that_cut_lines_and_characters(client: RayClient, fake: FakeDashboard, size: int) -> None:
    fake.log_write_bytes, fake.log_write_pause = size, 0.005
    job = await job_with(client, fake, "aé\U0001f600\nüber\r\n\nende".encode())
    assert await delivered(client, job) == ["aé\U0001f600", "über", "", "ende"]


async def test_a_growing_log_is_delivered_once(client: RayClient, fake: FakeDashboard) -> None:
    job = await job_with(client, fake, b"")
    lines = Lines()
    log = EagerLog(client, lines)
    whole = "".join(f"line {number} é\n" for number in range(50)).encode() + b"the end"
    for end in (0, 3, 9, 10, 11, 12, 100, 101, 400, len(whole)):
        fake.outcomes["j1"].log = whole[:end]
        await log.deliver(job)
        assert log.delivered == whole[:end].rfind(b"\n") + 1
    assert lines == [f"line {number} é" for number in range(50)]
    await log.deliver(job, final=True)
    await log.deliver(job, final=True)
    assert lines[50:] == ["the end"]
    assert log.delivered == len(whole)


async def test_a_progress_bar_moves_now_and_then(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await job_with(client, fake, b"")
    lines = Lines()
    log = EagerLog(client, lines)
    bar = b"start\n"
    for percent, pause in ((0, 0.0), (10, 0.0), (20, 60.0), (30, 60.0)):
        monkeypatch.setattr(pacing, "LOG_PROGRESS_SECONDS", pause)
        bar += b"\r%d %%" % percent
        fake.outcomes["j1"].log = bar
        await log.deliver(job)
        await log.deliver(job)
    assert lines == ["start", "0 %", "10 %", "20 %"]
    assert log.delivered == len(b"start\n")
    fake.outcomes["j1"].log = bar + b"\r100 %\nend\n"
    await log.deliver(job, final=True)
    assert lines[4:] == ["100 %", "end"]


@pytest.mark.parametrize(
    ("already", "lines"),
    [(0, ["one", "two", "x", "end"]), (4, ["two", "x", "end"]), (8, ["x", "end"]), (10, ["end"]), (13, []), (99, [])],
)
async def test_delivery_goes_on_where_it_ended(
    client: RayClient, fake: FakeDashboard, already: int, lines: list[str]
) -> None:
    job = await job_with(client, fake, b"one\ntwo\nx\nend")
    assert await delivered(client, job, already) == lines


@pytest.mark.parametrize("character", ["x", "é", "\U0001f600"])
@pytest.mark.parametrize("size", [LINE_LIMIT_BYTES - 1, LINE_LIMIT_BYTES, LINE_LIMIT_BYTES + 1, 1_000_000])
async def test_long_lines_come_in_pieces(client: RayClient, fake: FakeDashboard, size: int, character: str) -> None:
    long = "a" + character * (size // len(character.encode()))
    job = await job_with(client, fake, f"before\n{long}\nafter\n".encode())
    first, *pieces, last = await delivered(client, job)
    assert (first, last) == ("before", "after")
    assert "".join(pieces) == long
    assert max(len(piece.encode()) for piece in pieces) <= 2 * LINE_LIMIT_BYTES + 4
    assert "" not in pieces


async def test_a_long_line_that_ends_with_a_piece_adds_no_empty_line(client: RayClient, fake: FakeDashboard) -> None:
    fake.log_write_bytes, fake.log_write_pause = LINE_LIMIT_BYTES, 0.05
    job = await job_with(client, fake, b"x" * LINE_LIMIT_BYTES + b"\n\nafter\n")
    assert await delivered(client, job) == ["x" * LINE_LIMIT_BYTES, "", "after"]


async def test_a_long_unfinished_line_goes_on_later(client: RayClient, fake: FakeDashboard) -> None:
    job = await job_with(client, fake, b"x" * 100_000)
    lines = Lines()
    log = EagerLog(client, lines)
    await log.deliver(job)
    assert 0 < log.delivered <= 100_000
    fake.outcomes["j1"].log = b"x" * 100_000 + b"y\nz"
    await log.deliver(job, final=True)
    assert "".join(lines) == "x" * 100_000 + "yz"
    assert lines[-1] == "z"


@pytest.mark.parametrize("fault", [500, 429, "close", "cut"])
async def test_a_fault_loses_and_repeats_nothing(client: RayClient, fake: FakeDashboard, fault: Any) -> None:
    whole = "".join(f"line {number}\n" for number in range(10_000)).encode()
    job = await job_with(client, fake, whole)
    lines = Lines()
    log = EagerLog(client, lines)
    # aiohttp itself repeats a GET once when a connection that it kept is closed.
    fake.fail(fault, path=PATH, times=2 if fault == "close" else 1)
    await log.deliver(job)
    assert len(lines) < 10_000
    await log.deliver(job)
    assert lines == whole.decode().splitlines()


async def test_the_last_read_is_repeated(client: RayClient, fake: FakeDashboard) -> None:
    job = await job_with(client, fake, b"one\ntwo\nlast words")
    fake.fail("cut", path=PATH)
    fake.fail(503, path=PATH)
    assert await delivered(client, job) == ["one", "two", "last words"]


async def test_a_log_that_is_gone_is_a_warning(
    client: RayClient, fake: FakeDashboard, caplog: pytest.LogCaptureFixture
) -> None:
    job = await job_with(client, fake, b"")
    fake.fail(404, path=PATH, times=9, text="no such node")
    assert await delivered(client, job) == []
    (record,) = (each for each in caplog.records if each.name == "airflow_provider_ray.client.jobs.driver_log")
    assert record.levelno == logging.WARNING
    assert "no such node" in record.getMessage()


async def test_a_job_without_a_driver_has_no_log(client: RayClient, fake: FakeDashboard) -> None:
    fake.outcomes["j1"] = Outcome(running_after=60, message="waiting")
    await client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1"))
    assert await delivered(client, await client.jobs.get("j1")) == []
    assert await read_log(client, "j1") == "Job is PENDING."
    assert fake.asked("GET", PATH) == []


async def test_the_last_lines(client: RayClient, fake: FakeDashboard) -> None:
    job = await job_with(client, fake, b"".join(b"%d\n" % number for number in range(100)) + b"x" * 5000)
    assert await last_lines(client, job) == [*(str(number) for number in range(81, 100)), "x" * 1000]


async def test_the_last_lines_of_a_log_that_is_gone(
    client: RayClient, fake: FakeDashboard, caplog: pytest.LogCaptureFixture
) -> None:
    job = await job_with(client, fake, b"one\n")
    fake.fail(404, path=PATH, times=9, text="no such node")
    assert await last_lines(client, job) == []
    assert "no such node" in caplog.text


async def test_reading_leaves_the_cluster_alone_in_between(client: RayClient, fake: FakeDashboard) -> None:
    fake.log_write_bytes, fake.log_write_pause = 1, 0.01
    job = await job_with(client, fake, b"0123456789\n")
    log = DriverLog(client, Lines())
    for _ in range(10):
        await log.deliver(job)
    assert len(fake.asked("GET", PATH)) == 1


async def test_the_whole_log(client: RayClient, fake: FakeDashboard) -> None:
    await job_with(client, fake, b"one\n\xff\nlast")
    assert await read_log(client, "j1") == "one\n\ufffd\nlast"


async def test_a_line_has_the_level_that_it_names(client: RayClient, fake: FakeDashboard) -> None:
    job = await job_with(client, fake, b"plain\nERROR:root:no\n")
    lines = Lines()
    await DriverLog(client, lines).deliver(job, final=True)
    assert (lines, lines.levels) == (["plain", "ERROR:root:no"], [logging.INFO, logging.ERROR])


async def test_what_comes_too_fast_is_left_out_but_for_its_end(client: RayClient, fake: FakeDashboard) -> None:
    job = await job_with(client, fake, b"".join(b"%d\n" % number for number in range(500_000)))
    lines = await delivered(client, job)
    assert lines[:10_000] == [str(number) for number in range(10_000)]
    notice, *last = lines[10_000:]
    assert "489980 lines" in notice
    assert f"{fake.url}/#/jobs/j1" in notice
    assert last == [str(number) for number in range(499_980, 500_000)]


async def test_a_log_that_is_left_out_in_part_goes_on(client: RayClient, fake: FakeDashboard) -> None:
    job = await job_with(client, fake, b"x\n" * 20_000)
    lines = Lines()
    log = EagerLog(client, lines)
    await log.deliver(job)
    shown = len(lines)
    fake.outcomes["j1"].log = b"x\n" * 20_000 + b"and on\n"
    await asyncio.sleep(0.1)
    await log.deliver(job, final=True)
    assert (shown, lines[shown:]) == (10_021, ["and on"])


async def test_what_a_slow_driver_wrote_long_ago_is_not_too_fast(client: RayClient, fake: FakeDashboard) -> None:
    job = await job_with(client, fake, b"".join(b"%d\n" % number for number in range(30_000)))
    assert job.start_time_ms is not None
    lines = await delivered(client, replace(job, start_time_ms=job.start_time_ms - 60_000))
    assert lines == [str(number) for number in range(30_000)]


async def test_a_burst_is_granted_once(client: RayClient, fake: FakeDashboard) -> None:
    job = await job_with(client, fake, b"x\n" * 10_000)
    lines = Lines()
    log = EagerLog(client, lines)
    await log.deliver(job)
    shown = len(lines)
    fake.outcomes["j1"].log = b"x\n" * 20_000
    started = time.monotonic()
    await log.deliver(job, final=True)
    assert shown == 10_000
    assert "omitted" in lines[-21]
    # What the time between the reads allows, which counts from the beginning of the first.
    assert len(lines) - shown < 5_000 + 1_000 * (time.monotonic() - started)


async def test_a_job_of_yesterday_floods_no_log(client: RayClient, fake: FakeDashboard) -> None:
    job = await job_with(client, fake, b"x\n" * 200_000)
    assert job.start_time_ms is not None
    lines = await delivered(client, replace(job, start_time_ms=job.start_time_ms - 86_400_000))
    assert len(lines) == 100_000 + 1 + 20


async def test_a_log_without_end_is_followed_up_to_a_limit(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "LOG_FOLLOWED_BYTES", 50_000)
    job = await job_with(client, fake, b"".join(b"%9d\n" % number for number in range(1_000_000)))
    lines = Lines()
    log = EagerLog(client, lines)
    await log.deliver(job)
    *shown, notice = lines
    assert [int(line) for line in shown] == list(range(len(shown)))
    assert 50_000 <= log.delivered < 50_000 + driver_log.CHUNK_BYTES
    assert f"{log.delivered} bytes" in notice
    await log.deliver(job)
    assert len(lines) == len(shown) + 1
    await log.deliver(job, final=True)
    assert [int(line) for line in lines[len(shown) + 1 :]] == list(range(999_980, 1_000_000))


async def test_a_log_that_is_never_given_its_turn_is_a_warning(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pacing, "LOG_TURN_SECONDS", 0.1)
    monkeypatch.setattr(pacing, "LOG_FINAL_SECONDS", 0.2)
    job = await job_with(client, fake, b"line\n")
    lines, log = Lines(), DriverLog(client, Lines())
    async with AsyncExitStack() as busy:
        for _ in range(pacing.LOGS_AT_ONCE):
            await busy.enter_async_context(client.jobs.log_turn(0))
        assert client.jobs.logs_are_busy
        async with asyncio.timeout(10):
            await log.deliver(job)
            assert not caplog.records
            await log.deliver(job, final=True)
            assert await last_lines(client, job) == []
        assert caplog.text.count("no turn for another one") == 2
        assert not fake.asked("GET", "/api/v0/logs")
    async with AsyncExitStack() as busy:
        for _ in range(pacing.LOGS_AT_ONCE - 1):
            await busy.enter_async_context(client.jobs.log_turn(0))
        await DriverLog(client, lines).deliver(job, final=True)
    assert lines == ["line"]


async def test_a_read_that_is_repeated_keeps_its_turn(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.jobs, "_logs", asyncio.Semaphore(1))
    job = await job_with(client, fake, b"line\n")
    fake.fail(502, path="/api/v0/logs", times=1)
    done: list[int] = []

    async def read(number: int) -> None:
        lines = Lines()
        await DriverLog(client, lines).deliver(job, final=True)
        assert lines == ["line"]
        done.append(number)

    await asyncio.gather(*(read(number) for number in range(3)))
    assert done == [0, 1, 2]


class Kept:
    """A position in memory."""

    def __init__(self) -> None:
        self.positions: dict[str, int] = {}
        self.asked_to_read: list[int] = []

    async def find(self, submission_id: str) -> int:
        return self.positions.get(submission_id, 0)

    async def put(self, submission_id: str, delivered: int) -> None:
        self.positions[submission_id] = delivered

    async def has_read(self, at_most: int) -> bool:
        self.asked_to_read.append(at_most)
        return True


async def test_airflow_takes_what_is_shown_before_there_is_more_or_an_end(
    client: RayClient, fake: FakeDashboard
) -> None:
    job = await job_with(client, fake, b"x" * 50 + b"\n" + b"one more line\n" * 999)
    kept = Kept()
    log = DriverLog(client, Lines(), kept)
    await log.deliver(job)
    assert kept.asked_to_read == [pacing.LOG_WINDOW_BYTES] * 1000 + [pacing.LOG_LITTLE_BYTES]
    await log.deliver(job, final=True)
    assert kept.asked_to_read[1001:] == [0]


async def test_airflow_that_takes_nothing_is_asked_once_in_a_read_and_at_its_end(
    client: RayClient, fake: FakeDashboard, caplog: pytest.LogCaptureFixture
) -> None:
    class Silent(Kept):
        async def has_read(self, at_most: int) -> bool:
            await super().has_read(at_most)
            return False

    job = await job_with(client, fake, b"one more line\n" * 999)
    lines, kept = Lines(), Silent()
    log = DriverLog(client, lines, kept)
    await log.deliver(job)
    assert len(lines) == 999
    assert kept.asked_to_read == [pacing.LOG_WINDOW_BYTES]
    assert "was not read in time" not in caplog.text
    await log.deliver(job, final=True)
    assert kept.asked_to_read[1:] == [0]
    assert "The driver log of Ray job j1 may be incomplete: it was not read in time" in caplog.text


async def test_another_process_resumes_at_the_position(client: RayClient, fake: FakeDashboard) -> None:
    job = await job_with(client, fake, b"one\ntw")
    lines, kept = Lines(), Kept()
    await DriverLog(client, lines, kept).deliver(job)
    assert kept.positions == {"j1": 4}
    fake.outcomes["j1"].log = b"one\ntwo\nthree"
    await DriverLog(client, lines, kept).deliver(job, final=True)
    assert lines == ["one", "two", "three"]


async def test_a_process_that_is_ended_while_it_reads_marks_what_it_has_shown(
    client: RayClient, fake: FakeDashboard
) -> None:
    fake.log_write_bytes, fake.log_write_pause = 4, 0.05
    job = await job_with(client, fake, b"".join(b"%03d\n" % number for number in range(100)))
    lines, kept = Lines(), Kept()
    reading = asyncio.create_task(DriverLog(client, lines, kept).deliver(job, final=True))
    while len(lines) < 5:
        await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert kept.positions == {"j1": 4 * len(lines)}
    fake.log_write_pause = 0
    await DriverLog(client, lines, kept).deliver(job, final=True)
    assert lines == [f"{number:03d}" for number in range(100)]


async def test_a_position_that_is_not_answered_holds_nobody_up(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent(Kept):
        async def put(self, submission_id: str, delivered: int) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(pacing, "LOG_POSITION_SECONDS", 0.1)
    job = await job_with(client, fake, b"one\n")
    lines = Lines()
    await DriverLog(client, lines, Silent()).deliver(job, final=True)
    assert lines == ["one"]


async def test_others_in_the_loop_get_their_turn(client: RayClient, fake: FakeDashboard) -> None:
    class Slow(Lines):
        def log(self, level: int, message: str, /, *args: object) -> None:
            super().log(level, message, *args)
            turns.append(len(self))

    turns: list[int] = []
    job = await job_with(client, fake, b"x\n" * 5_000)
    reading = asyncio.create_task(DriverLog(client, Slow()).deliver(job, final=True))
    pauses = [0]
    while not reading.done():
        pauses.append(len(turns))
        await asyncio.sleep(0)
    assert max(later - earlier for earlier, later in pairwise(pauses)) <= pacing.LOG_LINES_AT_ONCE + 1
