"""What the Dags of the end-to-end tests have in common."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum

DEFAULTS: dict[str, Any] = {
    "schedule": None,
    "start_date": pendulum.datetime(2026, 1, 1, tz="UTC"),
    "catchup": False,
    "is_paused_upon_creation": False,
}
# Airflow 3.3.2 fails some tasks that are deferred or rescheduled for a moment only; the retry finds its job again.
RETRIED: dict[str, Any] = {"retries": 3, "retry_delay": timedelta(seconds=1)}
DEFERRED: dict[str, Any] = {"deferrable": True, "poll_interval": 2, **RETRIED}
FAIL = """
import sys, time
time.sleep(4)
print("about to fail")
sys.exit(3)
"""
