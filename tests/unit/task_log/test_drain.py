"""What is counted of the pipe to the task logs."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_ray.task_log import drain
from airflow_provider_ray.task_log.drain import LogPipe

ROOT = Path(__file__).parents[2]

# As the triggerer does it in Airflow 3.3.2: one pipe, and the names of the task in each record.
LOGS = """
import logging, os, sys
import structlog
from airflow.sdk.log import configure_logging
configure_logging(json_output=True, output=os.fdopen(int(sys.argv[1]), "wb", buffering=0), sending_to_supervisor=True)

from airflow_provider_ray.task_log.drain import CountedLogger, pipe

trigger = CountedLogger(structlog.get_logger("airflow_provider_ray.triggers.job.RayJobTrigger"))
client = logging.getLogger("airflow_provider_ray.client.jobs.driver_log")
long = "n" * int(sys.argv[2])
structlog.contextvars.bind_contextvars(
    trigger_id=123456, ti_id="01a20136-96e7-7643-b35e-a3cdd1582468", try_number=1,
    dag_id=long, task_id=long, run_id=long, map_index=2,
)
written = [pipe.written]

def deeper(depth):
    return 1 / depth + deeper(depth - 1)

for text in ("", "a line", "long" * 1000, "\\N{SNOWMAN}" * 100, "\\x1b[36m" * 100, '"' * 100):
    trigger.info("%s", text)
    written.append(pipe.written)
for silent in (lambda: trigger.log(logging.DEBUG, "not shown"), lambda: client.debug("not shown")):
    silent()
    written.append(pipe.written)
result = repr({"job": {"status": "FAILED", "message": "line\\n" * 100}, "log_tail": ["line"] * 20, "fault": None})
airflow = structlog.get_logger("airflow_provider_ray")
airflow.info("trigger %s starting", long * 3)
pipe.count()
written.append(pipe.written)
airflow.info("Trigger fired event", name=long * 3, result=result)
pipe.count(result)
written.append(pipe.written)
client.warning("%s cannot be read: %s", "The log", "busy")
written.append(pipe.written)
try:
    deeper(10)
except ZeroDivisionError:
    client.exception("what went wrong")
print(*written, pipe.written)
"""


@pytest.fixture
def pipe() -> LogPipe:
    return LogPipe(capacity=10_000)


@pytest.mark.anyio
async def test_what_is_logged_while_airflow_answers_may_not_have_been_read(pipe: LogPipe) -> None:
    async def answer() -> str:
        pipe.add(1000)
        return "answer"

    pipe.add(100)
    assert await pipe.during(answer()) == "answer"
    assert (pipe.written, pipe.taken) == (1100, 100)


def test_what_the_pipe_cannot_hold_has_been_read(pipe: LogPipe) -> None:
    pipe.add(10_000)
    assert pipe.taken == 0
    pipe.add(1)
    assert pipe.taken == 1


@pytest.mark.parametrize(
    ("name_length", "levels"), [(1, ("INFO", "")), (250, ("INFO", "")), (1, ("WARNING", "airflow_provider_ray=INFO"))]
)
def test_each_record_is_counted_with_once_or_twice_its_bytes(
    name_length: int, levels: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(("LOGGING_LEVEL", "NAMESPACE_LEVELS"), levels, strict=True):
        monkeypatch.setenv(f"AIRFLOW__LOGGING__{name}", value)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        command = [sys.executable, "-c", LOGS, str(theirs.fileno()), str(name_length)]
        printed = subprocess.run(
            command, pass_fds=[theirs.fileno()], cwd=ROOT, capture_output=True, text=True, check=True
        )
        records = ours.recv(1_000_000).splitlines(keepends=True)
    written = [int(number) for number in printed.stdout.splitlines()[-1].split()]
    counted = [after - before for before, after in itertools.pairwise(written) if after > before]
    assert len(records) == len(counted) == 10
    for record, count in zip(records, counted, strict=True):
        assert len(record) <= count <= 2 * len(record), record


def test_more_is_counted_than_a_pipe_holds() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        # A long record fills it most.
        assert drain.pipe._capacity > 2 * sum(_fill(theirs, b"x" * 200_000))


def _fill(pipe: socket.socket, record: bytes) -> Iterator[int]:
    while True:
        try:
            yield pipe.send(record)
        except BlockingIOError:
            return
