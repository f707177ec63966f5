"""Dag runs as the end-to-end tests see them, and the jobs that they left on the clusters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import httpx

from airflow_provider_ray.local import LocalCluster
from dev.airflow_api import UNFINISHED, AirflowApi

PATIENCE_SECONDS = 300.0

T = TypeVar("T")


def eventually(look: Callable[[], T | None], what: str, timeout: float = PATIENCE_SECONDS, pause: float = 1.0) -> T:
    """Look again and again, by default every second, until something is there, and return it."""
    deadline = time.monotonic() + timeout
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s"
        time.sleep(pause)
    return found


class Run:
    """One Dag run."""

    def __init__(self, api: AirflowApi, dag_id: str, run_id: str) -> None:
        self.api, self.dag_id, self.run_id = api, dag_id, run_id

    def finished(self) -> str:
        """Wait for the end of the run and return its state."""

        def end() -> str | None:
            state: str = self.api.run(self.dag_id, self.run_id)["state"]
            return None if state in UNFINISHED else state

        return eventually(end, f"the end of {self.dag_id}")

    def succeeds(self) -> None:
        """Wait for the end of the run, and show the logs of the tasks that failed if it is not a success."""
        state = self.finished()
        failed = [each for each in self.api.task_instances(self.dag_id, self.run_id) if each["state"] == "failed"]
        assert state == "success", "\n".join(self.text(each["task_id"], each["map_index"]) for each in failed)

    def expect(self, task_id: str, state: str) -> None:
        """Wait for the end of the run, and show the task's log if it is not in this state."""
        self.finished()
        assert self.task(task_id)["state"] == state, self.text(task_id)

    def task(self, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """The task instance as the REST API shows it."""
        for instance in self.api.task_instances(self.dag_id, self.run_id):
            if (instance["task_id"], instance["map_index"]) == (task_id, map_index):
                return instance
        raise AssertionError(f"{self.dag_id} has no task {task_id} {map_index}")

    def reaches(self, task_id: str, *states: str, pause: float = 1.0) -> dict[str, Any]:
        """Wait until a task is in one of the states."""

        def reached() -> dict[str, Any] | None:
            instance = self.task(task_id)
            return instance if instance["state"] in states else None

        return eventually(reached, f"{self.dag_id}.{task_id} in {states}", pause=pause)

    def seconds(self) -> float:
        """From the start of the run to its end."""
        run = self.api.run(self.dag_id, self.run_id)
        start, end = (datetime.fromisoformat(run[key]) for key in ("start_date", "end_date"))
        return (end - start).total_seconds()

    def xcom(self, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        return self.api.xcom(self.dag_id, self.run_id, task_id, key=key, map_index=map_index)

    def log(self, task_id: str, map_index: int = -1) -> list[str]:
        """Lines of all attempts of a task."""
        where = f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/{task_id}/{map_index}"
        tries = self.api.call("GET", f"{where}/tries")["task_instances"]
        return [line for each in tries for line in self._attempt(task_id, map_index, each["try_number"])]

    def last_log(self, task_id: str, map_index: int = -1) -> list[str]:
        """Lines of the last attempt; Airflow 3.3.2 fails some quick deferrals, and the next attempt logs anew."""
        return self._attempt(task_id, map_index, self.task(task_id, map_index)["try_number"])

    def _attempt(self, task_id: str, map_index: int, number: int) -> list[str]:
        where = (self.dag_id, self.run_id, task_id)
        messages = self.api.log(*where, try_number=number, map_index=map_index)
        return [line for message in messages for line in message.splitlines()]

    def text(self, task_id: str, map_index: int = -1) -> str:
        return "\n".join(self.log(task_id, map_index))

    def jobs(self, cluster: LocalCluster, task_id: str) -> list[dict[str, Any]]:
        """Jobs of the cluster that a task of this run submitted, oldest first."""
        wanted = {"airflow_dag_id": self.dag_id, "airflow_run_id": self.run_id, "airflow_task_id": task_id}
        found = [job for job in submitted_jobs(cluster) if wanted.items() <= (job["metadata"] or {}).items()]
        return sorted(found, key=lambda job: job["start_time"])


def submitted_jobs(cluster: LocalCluster) -> list[dict[str, Any]]:
    """All submissions that a cluster knows."""
    return [job for job in get(cluster, "/api/jobs/") if job["type"] == "SUBMISSION"]


def get(cluster: LocalCluster, path: str) -> Any:
    """What the cluster's dashboard answers."""
    return _ask("GET", cluster, path)


def post(cluster: LocalCluster, path: str, body: Mapping[str, Any]) -> Any:
    """What the cluster's dashboard answers to a request with a body."""
    return _ask("POST", cluster, path, json=dict(body))


def _ask(method: str, cluster: LocalCluster, path: str, **request: Any) -> Any:
    headers = {"Authorization": f"Bearer {cluster.token}"} if cluster.token else {}
    with httpx.Client(headers=headers, trust_env=False, timeout=30) as client:
        answer = client.request(method, f"{cluster.url}{path}", **request)
    answer.raise_for_status()
    return answer.json()


Trigger = Callable[[str], Run]
