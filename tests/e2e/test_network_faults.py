"""What becomes of a job when the network between Airflow and its cluster fails for a while.

The cases run side by side, each through a proxy of its own; they spend their time waiting.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from airflow_provider_ray.local import LocalCluster
from dev.airflow_stack import AirflowStack
from tests.e2e.fault_proxy import BLACK_HOLE, HALF_OPEN, REFUSED, Fault, FaultProxy
from tests.e2e.faults import BLOCKING, DEFERRED, CountingRun, Playing, run_mode, side_by_side
from tests.e2e.reliability import Report
from tests.e2e.runs import eventually

pytestmark = pytest.mark.full

AWAY_SECONDS, SHORTER = 20, 5
BEGIN_SECONDS = 120.0
RUN_SECONDS, LONG_RUN_SECONDS = 30, 120


class Network:
    """One cluster behind a proxy, and a connection that leads there.

    :param airflow: what gets the connection.
    :param cluster: the cluster.
    :param conn_id: id of the connection.
    """

    def __init__(self, airflow: AirflowStack, cluster: LocalCluster, conn_id: str) -> None:
        self.proxy = FaultProxy(cluster.ports.dashboard)
        self._airflow, self._cluster, self._conn_id = airflow, cluster, conn_id

    def start(self, dag_id: str, seconds: int = RUN_SECONDS) -> CountingRun:
        """Start a run whose task reaches the cluster through the proxy."""
        secret = {"password": self._cluster.token} if self._cluster.token else {}
        self._airflow.api.add_connections({self._conn_id: {**self._address, **secret}})
        return CountingRun(self._airflow.api, self._cluster, dag_id, {"conn_id": self._conn_id, "seconds": seconds})

    def log_in(self) -> None:
        """From now on, the connection has a login, so that the cluster's token travels in Ray's second header."""
        extra = json.dumps({"cluster_token": self._cluster.token})
        fields = {"connection_id": self._conn_id, **self._address, "login": "user", "password": "pass", "extra": extra}
        self._airflow.api.call("PATCH", f"connections/{self._conn_id}", json=fields)

    @property
    def _address(self) -> dict[str, Any]:
        return {"conn_type": "ray", "host": "127.0.0.1", "port": self.proxy.port}

    @contextmanager
    def away_from(self, request: bytes, kind: str) -> Iterator[threading.Event]:
        """A fault that begins with a request, which shares its fate; the event tells that it has begun."""
        begun = threading.Event()
        with ExitStack() as away:

            def begin() -> bool:
                away.enter_context(self.proxy.fault(kind))
                begun.set()
                return kind != REFUSED

            self.proxy.when(request, begin)
            yield begun


def ends_in_one_attempt(run: CountingRun, seen: Callable[..., None]) -> None:
    """Nobody notices; Airflow itself may have failed an attempt, which 3.3.2 does when a task pauses for a moment."""
    run.ended(seen, "SUCCEEDED")
    assert "RayClusterUnavailable" not in run.text("count")


def during_submit(network: Network, report: Report, kind: str, dag_id: str) -> None:
    """With a half-open connection the cluster gets the submission, and its answer is lost."""
    fault = f"{kind} for {AWAY_SECONDS} s, starting at the POST, {run_mode(dag_id)}"
    with report.case(fault, "the job is submitted once") as seen:
        with network.away_from(b"POST /api/jobs/ ", kind) as begun:
            run = network.start(dag_id)
            assert begun.wait(BEGIN_SECONDS)
            time.sleep(AWAY_SECONDS)
        ends_in_one_attempt(run, seen)


def during_polls(network: Network, report: Report, kind: str, dag_id: str) -> None:
    with report.case(
        f"{kind} for {AWAY_SECONDS} s while polling, {run_mode(dag_id)}", "the task keeps waiting"
    ) as seen:
        run = network.start(dag_id)
        run.wait_until_watched()
        with network.proxy.fault(kind):
            time.sleep(AWAY_SECONDS)
        ends_in_one_attempt(run, seen)


def during_log_reads(network: Network, report: Report, dag_id: str) -> None:
    case = f"{BLACK_HOLE} for {AWAY_SECONDS} s, log reads only, {run_mode(dag_id)}"
    with report.case(case, "no line is lost or repeated") as seen:
        run = network.start(dag_id)
        run.wait_until_watched()
        with network.proxy.faulty(Fault(drop_requests=True, only=b"/api/v0/logs/")):
            time.sleep(AWAY_SECONDS)
        ends_in_one_attempt(run, seen)


def during_stop(network: Network, report: Report, kind: str) -> None:
    with report.case(f"{kind} for {SHORTER} s during the stop, deferred", "the job is stopped afterwards") as seen:
        run = network.start(DEFERRED, LONG_RUN_SECONDS)
        run.wait_until_watched()
        with network.away_from(b"/stop HTTP", kind) as begun:
            run.api.set_task_state(run.dag_id, run.run_id, "count", "failed")
            assert begun.wait(BEGIN_SECONDS)
            time.sleep(SHORTER)
        eventually(lambda: run.statuses() == ["STOPPED"] or None, "the stop", 60)
        assert run.finished() == "failed"
        seen(jobs=run.statuses(), state="failed")


def bad_gateways(network: Network, report: Report) -> None:
    fault = "20% of all responses are 502, for two minutes"
    with report.case(fault, "no effect") as seen, network.proxy.faulty(Fault(bad_share=0.2)):
        run = network.start(DEFERRED, LONG_RUN_SECONDS - 10)
        ends_in_one_attempt(run, seen)


def changed_credentials(network: Network, report: Report, dag_id: str) -> None:
    """A proxy begins to demand a login, and keeps the header Authorization to itself."""
    fault = f"credentials replaced in front of the cluster, {SHORTER} s later in the connection, {run_mode(dag_id)}"
    with report.case(fault, "the task keeps waiting") as seen:
        run = network.start(dag_id)
        run.wait_until_watched()
        with network.proxy.faulty(Fault(replace=(b"\r\nAuthorization:", b"\r\nX-Nothing-Here:"))):
            time.sleep(SHORTER)
            network.log_in()
            ends_in_one_attempt(run, seen)
        assert "RayAuth" not in run.text("count")


def refused_credentials(network: Network, report: Report, status: int) -> None:
    """What a token that was rotated looks like: Ray's own answer to the wrong one, or to none."""
    replaced = {401: (b"Authorization:", b"X-Nothing-Here:"), 403: (b"Bearer ", b"Bearer x")}[status]
    expected = "the task keeps waiting"
    with report.case(f"{status} during a job, for {SHORTER} s", expected) as seen:
        run = network.start(DEFERRED)
        run.wait_until_watched()
        with network.proxy.faulty(Fault(replace=replaced)):
            time.sleep(SHORTER)
        ends_in_one_attempt(run, seen)
        assert "RayAuth" not in run.text("count")


CASES: Mapping[str, tuple[int, Callable[..., None]]] = {
    **{
        f"{name}-{kind}-{run_mode(dag_id)}": (index, partial(case, kind=kind, dag_id=dag_id))
        for name, case in (("submit", during_submit), ("poll", during_polls))
        for index, kind in enumerate((REFUSED, BLACK_HOLE, HALF_OPEN))
        for dag_id in (BLOCKING, DEFERRED)
    },
    **{f"log-{run_mode(dag_id)}": (2, partial(during_log_reads, dag_id=dag_id)) for dag_id in (BLOCKING, DEFERRED)},
    **{f"stop-{kind}": (0, partial(during_stop, kind=kind)) for kind in (REFUSED, BLACK_HOLE, HALF_OPEN)},
    **{str(status): (2, partial(refused_credentials, status=status)) for status in (401, 403)},
    **{
        f"changed-{run_mode(dag_id)}": (2, partial(changed_credentials, dag_id=dag_id))
        for dag_id in (BLOCKING, DEFERRED)
    },
    "502": (1, bad_gateways),
}


# In a worker the same function waits as in the triggerer.
WITH_CHAOS = [name for name in CASES if name.startswith(("submit", "poll")) and name.endswith(run_mode(BLOCKING))]


@pytest.fixture(scope="module")
def outcomes(
    airflow: AirflowStack, clusters: list[LocalCluster], report: Report, request: pytest.FixtureRequest
) -> Iterator[Playing]:
    """The cases under way; the longest begins first."""
    left_out = () if request.config.getoption("--chaos") else WITH_CHAOS

    def play(name: str) -> None:
        index, case = CASES[name]
        network = Network(airflow, clusters[index], f"network_{name}".replace(" ", "_"))
        with network.proxy:
            case(network, report)
            assert network.proxy.hits

    order = sorted(set(CASES) - set(left_out), key=lambda name: (name != "502", list(CASES).index(name)))
    with side_by_side({name: partial(play, name) for name in order}) as playing:
        yield playing


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.chaos] if name in WITH_CHAOS else []) for name in CASES]
)
def test_a_network_that_fails_for_a_while(outcomes: Playing, name: str) -> None:
    outcomes[name].result()
