"""Has Airflow read what triggers have logged? Measured on a real socket, with Airflow's end read by the test."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_ray.task_log.drain import has_read, log_stream
from tests.unit.airflow_log import AirflowLog

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]

# As the triggerer sets its logging up in Airflow 3.3: structlog and the standard library write to one stream.
LOGS = """
import asyncio, json, logging, os, sys
import structlog
from airflow.sdk.log import configure_logging
configure_logging(json_output=True, output=os.fdopen(int(sys.argv[1]), "wb", buffering=0), sending_to_supervisor=True)

from airflow_provider_ray.task_log.drain import has_read, log_stream
before = structlog.get_logger("before")
before.info("cached before the count began")
stream = log_stream()
structlog.get_logger("a.trigger").info("a line", detail="x" * 1000)
logging.getLogger("airflow_provider_ray.client").warning("a warning")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("airflow_provider_ray.client").exception("a traceback")
counted = stream.written
before.info("from a logger that bypasses the count")
print(json.dumps({"counted": counted, "is_read": asyncio.run(has_read(0, 0.2))}))
"""


async def test_nothing_is_waited_for_outside_of_a_triggerer() -> None:
    assert log_stream() is None
    assert await has_read(0, within=0)


async def test_a_line_that_nobody_reads_is_not_read(airflow_log: AirflowLog) -> None:
    assert await has_read(0, within=0.1)
    airflow_log.write(b"a line\n")
    assert not await has_read(0, within=0.1)
    assert await has_read(10_000, within=0)
    airflow_log.read()
    assert await has_read(0, within=0.1)


async def test_what_was_logged_before_the_count_began_has_to_be_read_as_well(airflow_log: AirflowLog) -> None:
    airflow_log.write(b"a line of the first trigger\n")
    assert not await has_read(0, within=0.1)
    airflow_log.read()
    assert await has_read(0, within=0.1)


async def test_what_bypasses_the_count_has_to_be_read_as_well(airflow_log: AirflowLog) -> None:
    """structlog keeps the method that it has found when a logger was first used."""
    bypass = airflow_log.stream.write
    assert await has_read(0, within=0)
    bypass(b"a line of a logger that is older than the count\n")
    assert not await has_read(0, within=0.1)
    airflow_log.read()
    assert await has_read(0, within=0.1)


async def test_a_trigger_waits_for_its_own_lines_and_not_for_those_that_follow(airflow_log: AirflowLog) -> None:
    """While others flood the log its socket is never empty."""
    stream, flood = log_stream(), b"x" * 999 + b"\n"
    assert stream is not None
    flooding = True

    async def others() -> None:
        while flooding:
            for _ in range(8):
                airflow_log.write(flood)
            airflow_log.read(8000)
            assert airflow_log.unread > 0
            await asyncio.sleep(0)

    for _ in range(40):
        airflow_log.write(flood)
    other = asyncio.create_task(others())
    airflow_log.write(b"the last line\n")
    assert await has_read(0, within=10)
    assert b"the last line\n" in airflow_log.received
    flooding = False
    await other


async def test_a_thousand_triggers_that_wait_measure_once_for_all(
    airflow_log: AirflowLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_ray.compat import triggerer

    looks, measure = 0, triggerer.unread_bytes

    def counted(stream: io.FileIO) -> int:
        nonlocal looks
        looks += 1
        return measure(stream)

    stream = log_stream()
    assert stream is not None
    monkeypatch.setattr(triggerer, "unread_bytes", counted)
    airflow_log.write(b"x" * 50_000)
    waiting = [asyncio.create_task(has_read(0, within=10)) for _ in range(1000)]
    await asyncio.sleep(0)
    first_looks = looks
    reading = asyncio.create_task(airflow_log.read_slowly(0.02))
    assert all(await asyncio.gather(*waiting))
    assert first_looks <= 1000
    # Some 13 reads of 4096 bytes, with a look after each.
    assert looks - first_looks < 60
    reading.cancel()


async def test_one_that_gives_up_does_not_hold_up_the_others(airflow_log: AirflowLog) -> None:
    airflow_log.write(b"x" * 10_000)
    impatient = asyncio.create_task(has_read(0, within=60))
    patient = asyncio.create_task(has_read(0, within=10))
    await asyncio.sleep(0.05)
    impatient.cancel()
    reading = asyncio.create_task(airflow_log.read_slowly())
    assert await patient
    reading.cancel()


async def test_what_the_standard_library_logs_is_counted(airflow_log: AirflowLog) -> None:
    stream = log_stream()
    assert stream is not None
    before = stream.written
    logging.getLogger("airflow_provider_ray.client").error("a line of %d bytes", 21)
    assert stream.written - before == len(b"a line of 21 bytes\n")


def test_in_a_process_with_airflows_own_logging() -> None:
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-c", LOGS, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        records = ours.recv(1_000_000).splitlines(keepends=True)
    said = json.loads(done.stdout.splitlines()[-1])
    loggers = [json.loads(record)["logger"] for record in records]
    counted = [record for record, name in zip(records, loggers, strict=True) if name != "before"]
    assert len(counted) == 3
    assert said == {"counted": sum(map(len, counted)), "is_read": False}


def test_importing_an_operator_opens_no_socket_and_installs_no_handler() -> None:
    script = (
        "import logging, socket\n"
        "from airflow_provider_ray.client.api import ray_client\n"
        "import airflow.sdk\n"
        "made = []\n"
        "real = socket.socket.__init__\n"
        "socket.socket.__init__ = lambda self, *a, **k: (made.append(1), real(self, *a, **k))[1]\n"
        "import airflow_provider_ray.operators.job, airflow_provider_ray.sensors.cluster\n"
        "loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]\n"
        "ours = [each for each in loggers if each.name.startswith('airflow_provider_ray') and each.handlers]\n"
        "print(made, ours)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] []"
