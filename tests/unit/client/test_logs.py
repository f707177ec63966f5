from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from airflow_provider_ray.client.jobspec import JobSpec
from airflow_provider_ray.client.logs import LINE_LIMIT_BYTES, DriverLog, read_log
from airflow_provider_ray.client.models import JobDetails
from airflow_provider_ray.client.ray_client import RayClient
from tests.fake_dashboard import FakeDashboard, Outcome

pytestmark = pytest.mark.anyio

PATH = "/api/v0/logs/file"


async def job_with(client: RayClient, fake: FakeDashboard, log: bytes) -> JobDetails:
    fake.outcomes["j1"] = Outcome(log=log)
    await client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1"))
    return await client.jobs.get("j1")


async def delivered(client: RayClient, job: JobDetails, already: int = 0) -> list[str]:
    lines: list[str] = []
    log = DriverLog(client, lines.append)
    log.delivered = already
    await log.deliver(job, final=True)
    return lines


class EagerLog(DriverLog):
    """Reads whenever it is asked."""

    async def deliver(self, job: JobDetails, *, final: bool = False, lines: int = -1) -> None:
        self._next_read = 0.0
        await super().deliver(job, final=final, lines=lines)


@pytest.mark.parametrize(
    ("log", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\n\n\ntwo", ["one", "", "", "two"]),
        (b"no line break", ["no line break"]),
        (b"dos\r\nend\r\n", ["dos", "end"]),
        (b"10 %\r20 %\rdone\n", ["10 %\r20 %\rdone"]),
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
    lines: list[str] = []
    log = EagerLog(client, lines.append)
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
    lines: list[str] = []
    log = EagerLog(client, lines.append)
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
    lines: list[str] = []
    log = EagerLog(client, lines.append)
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
    (record,) = (each for each in caplog.records if each.name == "airflow_provider_ray.client.logs")
    assert record.levelno == logging.WARNING
    assert "no such node" in record.getMessage()


async def test_a_job_without_a_driver_has_no_log(client: RayClient, fake: FakeDashboard) -> None:
    fake.outcomes["j1"] = Outcome(running_after=60, message="waiting")
    await client.jobs.submit(JobSpec(entrypoint="true", submission_id="j1"))
    assert await delivered(client, await client.jobs.get("j1")) == []
    assert await read_log(client, "j1") == "Job is PENDING."
    assert fake.asked("GET", PATH) == []


async def test_the_tail_keeps_the_last_lines(client: RayClient, fake: FakeDashboard) -> None:
    job = await job_with(client, fake, b"".join(b"%d\n" % number for number in range(100)) + b"x" * 5000)
    log = DriverLog(client, None)
    await log.deliver(job, final=True)
    assert list(log.tail) == [*(str(number) for number in range(81, 100)), "x" * 1000]
    short = DriverLog(client, None)
    await short.deliver(job, final=True, lines=3)
    assert [line[:3] for line in short.tail] == ["98", "99", "xxx"]


async def test_reading_leaves_the_cluster_alone_in_between(client: RayClient, fake: FakeDashboard) -> None:
    fake.log_write_bytes, fake.log_write_pause = 1, 0.01
    job = await job_with(client, fake, b"0123456789\n")
    log = DriverLog(client, None)
    for _ in range(10):
        await log.deliver(job)
    assert len(fake.asked("GET", PATH)) == 1


async def test_the_whole_log(client: RayClient, fake: FakeDashboard) -> None:
    await job_with(client, fake, b"one\n\xff\nlast")
    assert await read_log(client, "j1") == "one\n\ufffd\nlast"
