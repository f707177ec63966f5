"""A run whose surroundings die: its job prints a numbered line per second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from airflow_provider_ray.local import LocalCluster
from dev.airflow_api import AirflowApi
from tests.e2e.runs import Run, eventually

SECONDS = 15
BLOCKING, DEFERRED = "e2e_faults_blocking", "e2e_faults_deferred"
Playing = Mapping[str, Future[None]]

# Runs that wait cost little, but not so little that a small host could take all of them.
AT_ONCE = 7
# Time for what waits to have looked at the job, and at its log, once or twice.
SETTLE_SECONDS = 3


class CountingRun(Run):
    """A run of one of the counting Dags.

    :param cluster: where its job is, whatever the connection says.
    :param conf: of the run; ``conn_id`` is the cluster's unless given.
    """

    def __init__(
        self, api: AirflowApi, cluster: LocalCluster, dag_id: str, conf: Mapping[str, Any] | None = None
    ) -> None:
        self.conf = {"conn_id": cluster.name, "seconds": SECONDS, **(conf or {})}
        super().__init__(api, dag_id, api.trigger(dag_id, self.conf))
        self.cluster = cluster

    def statuses(self) -> list[str]:
        """States of all jobs that the run ever submitted, oldest first."""
        return [job["status"] for job in self.jobs(self.cluster, "count")]

    def wait_until_watched(self) -> None:
        """Wait until the job runs and somebody waits for it."""
        eventually(lambda: "RUNNING" in self.statuses() or None, "the job")
        self.reaches("count", "deferred" if self.dag_id == DEFERRED else "running")
        time.sleep(SETTLE_SECONDS)

    def pid(self) -> int:
        """The process of the task on its worker."""
        found: int = self.reaches("count", "running")["pid"]
        return found

    def triggerer(self) -> int | None:
        """The triggerer that has the task's trigger."""
        trigger = self.task("count")["trigger"]
        found: int | None = trigger and trigger["triggerer_id"]
        return found

    def counted(self) -> list[str]:
        """The driver's lines in the log of the last attempt."""
        return [line for line in self.last_log("count") if line.startswith("line ")]

    def ended(self, seen: Callable[..., None], *statuses: str) -> None:
        """The run succeeds, these are all its jobs, and each line of the last one is in the log once."""
        self.succeeds()
        seen(jobs=self.statuses(), state="success", lines=self.counted())
        assert self.statuses() == list(statuses)
        assert self.counted() == self.all_lines()

    def all_lines(self) -> list[str]:
        """What the driver prints."""
        return [f"line {number}" for number in range(self.conf["seconds"])]


def run_mode(dag_id: str) -> str:
    """What the task of a counting Dag is while its job runs."""
    return "deferred" if dag_id == DEFERRED else "running"


@contextmanager
def side_by_side(cases: Mapping[str, Callable[[], None]]) -> Iterator[Playing]:
    """Play cases that spend their time waiting, some at a time and in this order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        playing = {name: pool.submit(case) for name, case in cases.items()}
        yield playing
        for each in playing.values():
            each.cancel()
