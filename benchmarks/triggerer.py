"""A thousand deferred jobs in one real triggerer: ours against one request per job and interval.

The dashboards are those of :mod:`benchmarks.waits`: no real cluster runs a thousand jobs here. The tasks begin in the
triggerer, and no worker resumes them, so that the host is free for what is measured.
"""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.waits import CLUSTERS, ENDS, POLL_SECONDS, dashboards
from dev.airflow_processes import processes

EACH = 333
WAYS = ("one request each", "shared")
# Before it starts triggers the triggerer reads the whole Dag again for each of them, and writes no log meanwhile.
START_SECONDS, QUIET_SECONDS = 300.0, 60.0
# Airflow has lost the last line of up to one plain trigger in seven.
ENOUGH = 0.75


def measure() -> dict[str, Any]:
    """What 999 deferred tasks cost, by way of waiting."""
    return {way: _run(way) for way in WAYS}


def _run(way: str) -> dict[str, Any]:
    from dev.airflow_stack import AirflowStack
    from dev.postgres import postgres

    root = Path(__file__).parents[1]
    names = [f"fake_{number}" for number in range(CLUSTERS)]
    dag_id = f"waits_{way.replace(' ', '_')}"
    with tempfile.TemporaryDirectory() as home, dashboards(EACH) as urls, postgres() as database:
        environment = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.sqlalchemy,
            "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "500",
            "AIRFLOW__TRIGGERER__CAPACITY": "2000",
            "PYTHONPATH": str(root),
            "BENCHMARK_JOBS": str(EACH),
            "BENCHMARK_CLUSTERS": " ".join(names),
        }
        with AirflowStack(Path(home), {"benchmark": Path(__file__).parent / "dags"}, environment) as airflow:
            airflow.wait_until_healthy()
            airflow.api.add_connections(
                {name: {"conn_type": "ray", "host": url} for name, url in zip(names, urls, strict=True)}
            )
            airflow.api.call("POST", "pools", json={"name": "nobody", "slots": 0})
            airflow.wait_for_dags([dag_id])
            airflow.api.trigger(dag_id)
            triggerer = _Triggerer(airflow, dag_id)
            triggerer.wait_for(len(names) * EACH + 1, "trigger ", START_SECONDS)
            return triggerer.measured(urls)


class _Triggerer:
    """What the logs of the triggers and the processes of the triggerer tell.

    :param airflow: the Airflow.
    :param dag_id: whose tasks wait.
    """

    def __init__(self, airflow: Any, dag_id: str) -> None:
        self._logs = airflow.log_folder / f"dag_id={dag_id}"
        self._processes = [each for each in processes(airflow.home) if "triggerer" in " ".join(each.cmdline())]

    def wait_for(self, number: int, event: str, quiet_seconds: float = QUIET_SECONDS) -> None:
        """Wait until that many triggers have logged an event, or no more do; Airflow loses the last line of some."""
        seen, news = 0, time.monotonic()
        while seen < number and time.monotonic() - news < quiet_seconds:
            time.sleep(2)
            before, seen = seen, sum(1 for _ in self._events(event))
            news = time.monotonic() if seen > before else news
        if seen < ENOUGH * number:
            raise RuntimeError(f"{seen} of {number} triggers have logged {event!r}, which is no measurement.")

    def measured(self, urls: list[str]) -> dict[str, Any]:
        """Let the jobs end, and measure until all are known to have ended."""
        for url in urls:
            httpx.get(f"{url}/go").raise_for_status()
        cpu, started, went = self._cpu(), time.monotonic(), time.time()
        # The last job ends then, and the plain way may take an interval to notice.
        time.sleep(ENDS[1] + POLL_SECONDS)
        seconds, cpu = time.monotonic() - started, self._cpu() - cpu
        requests = [int(httpx.get(f"{url}/count").text) for url in urls]
        self.wait_for(len(urls) * EACH, "Trigger fired event")
        delays = [self._delay(record) for record in self._events("Trigger fired event")]
        probed = [record for record in self._events("lags ") if went < _time(record) <= went + seconds]
        lags = [float(lag) for record in probed for lag in record["event"].split()[1:]]
        return {
            "requests per second and cluster": round(max(requests) / seconds, 2),
            "loop lag, p99, ms": round(statistics.quantiles(lags, n=100)[98] * 1000, 1),
            "loop lag, longest, ms": round(max(lags) * 1000),
            "CPU of the triggerer, share of a core": round(cpu / seconds, 2),
            "memory of the triggerer, MB": round(sum(each.memory_info().rss for each in self._processes) / 1e6),
            "from a job's end to its event, median, s": round(statistics.median(delays), 2),
            "events": len(delays),
        }

    def _events(self, beginning: str) -> Iterator[dict[str, Any]]:
        for path in self._logs.rglob("*.trigger.*.log"):
            for line in path.read_text().splitlines():
                record = json.loads(line)
                if record["event"].startswith(beginning):
                    yield record

    def _cpu(self) -> float:
        return sum(sum(each.cpu_times()[:2]) for each in self._processes)

    @staticmethod
    def _delay(record: dict[str, Any]) -> float:
        ended = re.search(r"'end_time': (\d+)", str(record["result"]))
        if ended is None:
            raise RuntimeError(f"An event without the end of a job: {record}")
        return _time(record) - int(ended[1]) / 1000


def _time(record: dict[str, Any]) -> float:
    return datetime.fromisoformat(record["timestamp"]).timestamp()
