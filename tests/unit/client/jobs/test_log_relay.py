from __future__ import annotations

from logging import CRITICAL, ERROR, INFO, WARNING

import pytest

from airflow_provider_ray.client.jobs.log_relay import level_of


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("plain words", INFO),
        ("", INFO),
        ("ERROR:root:something", ERROR),
        ("ERROR something", ERROR),
        ("WARNING", WARNING),
        ("DEBUG:root:never dropped", INFO),
        ("2026-11-21 12:00:00,123 - my.module - WARNING - disk is full", WARNING),
        ("2026-11-21 12:00:00,123 WARNING disk is full", WARNING),
        ("2026-11-21T12:00:00.123Z [ERROR] disk is full", ERROR),
        ("[2026-11-21 12:00:00] CRITICAL in app: gone", CRITICAL),
        ("2026-11-21 12:00:00.123 | ERROR    | mod:func:12 - loguru", ERROR),
        ("2026-11-21 12:00:00,123\tWARNING worker.py:2000 -- Ray's own", WARNING),
        ("[2026-11-21 12:00:00,123 E 1234 1250] core_worker.cc:1: Ray's C++", ERROR),
        ("\x1b[36m(ServeReplica:app:D pid=12)\x1b[0m WARNING 2026-11-21 12:00:00,123 app -- in colour", WARNING),
        ("(task pid=12, ip=127.0.0.1) 2026-11-21 12:00:00,123 ERROR x", ERROR),
        ("An ERROR in the midst of words", INFO),
        ("ERRORS: 0", INFO),
        ("INFORMATION", INFO),
        ("warning: lower case may be anything", INFO),
        ("2026-11-21 12:00:00 nothing named", INFO),
    ],
)
def test_levels(line: str, level: int) -> None:
    assert level_of(line) == level


def test_a_long_line_is_looked_at_in_part() -> None:
    assert level_of("(" * 1_000_000) == INFO
    assert level_of("a." * 1_000_000) == INFO
