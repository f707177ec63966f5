"""What becomes of a job when a part of its cluster dies, or all of it.

The cases run side by side, each on a head of its own that nothing else uses.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial

import psutil
import pytest

from airflow_provider_ray.client.sync import run_sync
from airflow_provider_ray.local import LocalCluster, LocalOptions, head, local_clusters
from dev.airflow_stack import AirflowStack
from tests.e2e.faults import DEFERRED, CountingRun, Playing, side_by_side
from tests.e2e.reliability import Report
from tests.e2e.runs import Run, eventually, get

pytestmark = [pytest.mark.full, pytest.mark.chaos]

RUN_SECONDS, ENDLESS_SECONDS = 30, 600
BACK_SECONDS = 120.0


class SpareCluster:
    """A head that may be killed, and its connection.

    :param airflow: what gets the connection.
    :param cluster: the head.
    :param options: how it was started.
    """

    def __init__(self, airflow: AirflowStack, cluster: LocalCluster, options: LocalOptions, conn_id: str) -> None:
        self.cluster, self._options, self.conn_id = cluster, options, conn_id
        self._airflow = airflow
        fields = {"conn_type": "ray", "host": "127.0.0.1", "port": cluster.ports.dashboard}
        airflow.api.add_connections({conn_id: fields})

    def start(self, seconds: int) -> CountingRun:
        """A deferred run whose job is on this head."""
        conf = {"conn_id": self.conn_id, "seconds": seconds}
        return CountingRun(self._airflow.api, self.cluster, DEFERRED, conf)

    def kill(self, what: str) -> None:
        """Kill the process of the head whose command line contains this."""
        found = []
        for process in head.processes([self.cluster]):
            with suppress(psutil.NoSuchProcess):
                found += [process] if what in " ".join(process.cmdline()) else []
        (process,) = found
        process.kill()

    def kill_all(self) -> None:
        """Kill every process of the head."""
        for process in head.processes([self.cluster]):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def come_back(self) -> None:
        """Start the head again, on its old ports."""
        head.stop([self.cluster])
        shutil.rmtree(self.cluster.temp_dir)
        os.mkdir(self.cluster.temp_dir)
        head.start(self.cluster, head.find_ray(), self._options)
        eventually(lambda: run_sync(lambda: head.answering_session(self.cluster)), "the head", BACK_SECONDS)


def job_process(spare: SpareCluster, report: Report) -> None:
    with report.case("dashboard's job process killed", "no effect") as seen:
        run = spare.start(RUN_SECONDS)
        run.wait_until_watched()
        spare.kill("ray-dashboard-JobHead")
        run.ended(seen, "SUCCEEDED")


def agent(spare: SpareCluster, report: Report) -> None:
    """Ray takes the job for RUNNING for ever."""
    with report.case("head's agent killed", "RayJobLost; the retry submits a new job once the head is back") as seen:
        run = spare.start(ENDLESS_SECONDS)
        run.wait_until_watched()
        spare.kill("ray::DashboardAgent")
        when_lost(run, "the node")
        assert run.statuses() == ["RUNNING"]
        spare.come_back()
        replaced(run, spare, seen, left=[])


def without_records(spare: SpareCluster, report: Report) -> None:
    with report.case(
        "head killed (SIGKILL), restarted without records", "RayJobLost; the retry submits a new job"
    ) as seen:
        run = spare.start(ENDLESS_SECONDS)
        run.wait_until_watched()
        spare.kill_all()
        spare.come_back()
        when_lost(run, "its cluster no longer has a record")
        replaced(run, spare, seen, left=[])


def with_records(spare: SpareCluster, report: Report) -> None:
    with report.case(
        "head killed (SIGKILL), restarted with RocksDB records", "RayJobLost; the retry submits a new job"
    ) as seen:
        run = spare.start(ENDLESS_SECONDS)
        run.wait_until_watched()
        spare.kill_all()
        spare.come_back()
        assert run.statuses() == ["RUNNING"]
        when_lost(run, "the node")
        # The next attempt's stop makes Ray look for the driver, and find none.
        replaced(run, spare, seen, left=["FAILED"])


def when_lost(run: Run, reason: str) -> None:
    eventually(lambda: f"is lost: {reason}" in run.text("count") or None, "the loss", pause=3)
    eventually(lambda: run.text("count").count("RayJobLost") or None, "the error")


def replaced(run: CountingRun, spare: SpareCluster, seen: Callable[..., None], left: list[str]) -> None:
    """Another job runs; ended by hand, because it would take as long as the first."""
    eventually(lambda: run.statuses() == [*left, "RUNNING"] or None, "the other job")
    run.wait_until_watched()
    seen(jobs=["lost" if not left else f"lost ({left[0]})", *run.statuses()[len(left) :]], state="deferred")
    run.api.set_task_state(run.dag_id, run.run_id, "count", "success")
    eventually(lambda: run.statuses() == [*left, "STOPPED"] or None, "the stop", 60)
    assert run.finished() == "success"
    assert [node["state"] for node in nodes(spare) if node["is_head_node"]].count("ALIVE") == 1


def nodes(spare: SpareCluster) -> list[dict[str, object]]:
    found: list[dict[str, object]] = get(spare.cluster, "/api/v0/nodes")["data"]["result"]["result"]
    return found


CASES: Mapping[str, Callable[[SpareCluster, Report], None]] = {
    "job process": job_process,
    "agent": agent,
    "without records": without_records,
    "with records": with_records,
}


@pytest.fixture(scope="module")
def outcomes(airflow: AirflowStack, report: Report, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playing]:
    """The cases under way."""
    plain = LocalOptions()
    records = tmp_path_factory.mktemp("records")
    lasting = LocalOptions(env={"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(records)})
    with ExitStack() as heads:
        first, second, third = heads.enter_context(local_clusters(3, plain))
        (fourth,) = heads.enter_context(local_clusters(1, lasting))
        assert list(records.iterdir()), "The head keeps no records there"
        used = [(first, plain), (second, plain), (third, plain), (fourth, lasting)]
        yield heads.enter_context(
            side_by_side(
                {
                    name: partial(case, SpareCluster(airflow, *spare, f"spare_{name}".replace(" ", "_")), report)
                    for (name, case), spare in zip(CASES.items(), used, strict=True)
                }
            )
        )


@pytest.mark.parametrize("name", CASES)
def test_a_cluster_that_dies(outcomes: Playing, name: str) -> None:
    outcomes[name].result()
