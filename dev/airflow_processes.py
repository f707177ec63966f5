"""Finds and stops the processes of an Airflow, even if the process that started them is gone."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from airflow_provider_ray.local.head import processes_with

# Holds the value of AIRFLOW_HOME; AIRFLOW_HOME itself may also be set in any user's shell.
MARKER = "AIRFLOW_DEV_STACK"
# After a second signal Airflow no longer waits for anything; otherwise the triggerer always takes ten seconds.
HURRY_SECONDS, TERM_SECONDS, KILL_SECONDS, LOOK_SECONDS = 4.0, 20.0, 10.0, 0.3


class StackError(Exception):
    """Airflow cannot be started or stopped."""


def processes(home: Path) -> list[psutil.Process]:
    """Return all running processes of the Airflow with this home, even if their parents are gone."""
    return processes_with(MARKER, [str(home.absolute())])


def stop(home: Path) -> None:
    """Stop all processes of the Airflow with this home: SIGTERM, SIGTERM again after 4 s, and SIGKILL after 20 s.

    :raises StackError: when a process survived.
    """
    begin = time.monotonic()
    steps = [(0.0, _terminate), (HURRY_SECONDS, _terminate), (TERM_SECONDS, _kill)]
    while left := processes(home):
        waited = time.monotonic() - begin
        if steps and waited >= steps[0][0]:
            steps.pop(0)[1](left)
        if waited > TERM_SECONDS + KILL_SECONDS:
            raise StackError(f"processes survived SIGKILL: {[process.pid for process in left]}")
        psutil.wait_procs(left, timeout=LOOK_SECONDS)


def _terminate(left: Sequence[psutil.Process]) -> None:
    """Signal the components, which are session leaders and stop their children; if none are left, signal the rest."""
    for process in [process for process in left if _leads_session(process)] or left:
        with suppress(psutil.NoSuchProcess):
            process.terminate()


def _kill(left: Sequence[psutil.Process]) -> None:
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _leads_session(process: psutil.Process) -> bool:
    try:
        leads: bool = os.getsid(process.pid) == process.pid
    except ProcessLookupError:
        return False
    return leads
