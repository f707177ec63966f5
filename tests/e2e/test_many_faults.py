"""Two hundred jobs, and somebody who kills the processes of their tasks."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_ray.local import LocalCluster
from dev.airflow_processes import processes
from dev.airflow_stack import AirflowStack
from tests.e2e.reliability import Report
from tests.e2e.runs import Run, eventually, submitted_jobs

pytestmark = [pytest.mark.full, pytest.mark.chaos, pytest.mark.timeout(1200)]

KILLING_SECONDS, PAUSE_SECONDS = 180, 2


def test_every_job_runs_once_whatever_dies(airflow: AirflowStack, clusters: list[LocalCluster], report: Report) -> None:
    with report.case("200 mapped jobs, task processes killed at random for 3 minutes", "each job runs once") as seen:
        run = Run(airflow.api, "e2e_faults_many", airflow.api.trigger("e2e_faults_many"))
        kills = kill_at_random(run, airflow)
        eventually(lambda: airflow.api.run(run.dag_id, run.run_id)["state"] == "success" or None, "the end", 900)
        jobs = [job for cluster in clusters for job in submitted_jobs(cluster) if of(run, job)]
        ran = Counter((job["metadata"]["airflow_task_id"], job["metadata"]["airflow_map_index"]) for job in jobs)
        assert kills > 20
        assert set(ran.values()) == {1}
        assert len(ran) == 200
        states = Counter(job["status"] for job in jobs)
        seen(jobs=[f"{number} {state}" for state, number in states.items()], state=f"success, {kills} kills")
        assert states == {"SUCCEEDED": 200}


def kill_at_random(run: Run, airflow: AirflowStack) -> int:
    """Kill a running task process every few seconds, and return how many."""
    chance, kills = random.Random(1), 0
    until = time.monotonic() + KILLING_SECONDS
    while time.monotonic() < until:
        running = run.api.task_instances(run.dag_id, run.run_id, state="running")
        ours = {process.pid for process in processes(airflow.home)}
        if killable := [each["pid"] for each in running if each["map_index"] >= 0 and each["pid"] in ours]:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(killable), signal.SIGKILL)
                kills += 1
        time.sleep(PAUSE_SECONDS)
    return kills


def of(run: Run, job: dict[str, Any]) -> bool:
    return bool((job["metadata"] or {}).get("airflow_run_id") == run.run_id)
