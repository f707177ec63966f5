"""Local clusters without Ray: ports, state file, connections, and whose processes are ended.

Where a head is needed, a shell script stands in its place: what becomes of processes does not depend on Ray.
"""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from airflow_provider_ray import local
from airflow_provider_ray.local import head
from airflow_provider_ray.local.ports import Ports, choose_ports, is_free
from tests.fake_dashboard import FakeDashboard

StandIn = Callable[[str], str]


def listener(port: int, *, shared: bool = False) -> socket.socket:
    server = socket.socket()
    if shared:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind(("127.0.0.1", port))
    server.listen()
    return server


def cluster(**fields: object) -> local.LocalCluster:
    values: dict[str, object] = {
        "name": "ray_local_1",
        "ports": Ports(8301, 8401, 21100),
        "marker": "no-process-has-this",
        "temp_dir": "/nonexistent",
        "log_file": "/nonexistent.log",
    }
    return local.LocalCluster(**(values | fields))  # type: ignore[arg-type]


def write_state(directory: Path, *clusters: local.LocalCluster) -> None:
    local._save(directory, clusters)


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    def write(script: str) -> str:
        path = tmp_path / "ray"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def started() -> Iterator[list[local.LocalCluster]]:
    """Collect what a test starts by hand, so that nothing is left behind when the test fails."""
    clusters: list[local.LocalCluster] = []
    yield clusters
    head.stop(clusters)


def start(started: list[local.LocalCluster], ray: str, directory: Path, name: str) -> local.LocalCluster:
    temp_dir = directory / name
    temp_dir.mkdir(parents=True)
    planned = cluster(name=name, marker=f"{name}-{directory}", temp_dir=str(temp_dir), log_file=f"{temp_dir}.log")
    started.append(head.start(planned, ray, local.LocalOptions()))
    return started[-1]


def count(clusters: list[local.LocalCluster], expected: int) -> list[psutil.Process]:
    """Wait for the processes that a stand-in starts."""
    for _ in range(100):
        found = head.processes(clusters)
        if len(found) == expected:
            return found
        psutil.wait_procs(found, timeout=0.05)
    pytest.fail(f"{len(found)} processes instead of {expected}: {found}")


class TestPorts:
    def test_ports_of_several_clusters_are_free_and_disjoint(self) -> None:
        chosen = choose_ports(["a", "b", "c"])
        ports = [port for own in chosen for port in own]
        assert len(ports) == len(set(ports)) == 3 * 102
        assert all(map(is_free, ports))

    def test_choice_is_repeatable(self) -> None:
        assert choose_ports(["a", "b"]) == choose_ports(["x", "y"])

    @pytest.mark.parametrize("offset", [0, 2, 50, 99])
    def test_block_with_a_taken_port_is_left_out(self, offset: int) -> None:
        (first,) = choose_ports(["a"])
        with closing(listener(first.block + offset)):
            (other,) = choose_ports(["a"])
        assert other.block > first.block
        assert other.dashboard > first.dashboard

    def test_port_that_serve_shares_is_not_free(self) -> None:
        (ports,) = choose_ports(["a"])
        with closing(listener(ports.serve, shared=True)):
            assert not is_free(ports.serve)

    def test_no_option_is_inside_the_worker_range(self) -> None:
        ports = Ports(8301, 8401, 21100)
        options = dict(argument.removeprefix("--").split("=") for argument in ports.arguments())
        workers = range(int(options.pop("min-worker-port")), int(options.pop("max-worker-port")) + 1)
        others = [int(value) for value in [*options.values(), *ports.environment().values()]]
        assert len(set(others)) == len(others) == 11
        assert not set(others) & set(workers)
        assert int(options["dashboard-agent-listen-port"]) == ports.agent


class TestState:
    def test_what_was_saved_is_loaded_and_only_the_owner_can_read_it(self, tmp_path: Path) -> None:
        clusters = [cluster(pid=4711, token="s3cret"), cluster(name="ray_local_2")]
        write_state(tmp_path, *clusters)
        assert local.load(tmp_path) == clusters
        (state_file,) = tmp_path.iterdir()
        assert stat.S_IMODE(state_file.stat().st_mode) == 0o600

    def test_directory_without_clusters(self, tmp_path: Path) -> None:
        assert local.load(tmp_path) == []
        assert local.status(tmp_path) == []
        assert local.down(tmp_path) == []

    def test_token_is_in_no_repr(self) -> None:
        assert "s3cret" not in repr(cluster(token="s3cret"))
        assert "s3cret" not in repr(local.LocalOptions(tokens=["s3cret"], env={"A": "s3cret"}))


class TestConnections:
    def test_fields(self) -> None:
        found = local.connections([cluster(), cluster(name="ray_local_2", token="s3cret")])
        assert found["ray_local_1"] == {
            "conn_type": "ray",
            "schema": "http",
            "host": "127.0.0.1",
            "port": 8301,
            "extra": {"serve_url": "http://127.0.0.1:8401"},
        }
        assert found["ray_local_2"]["password"] == "s3cret"

    def test_variables_hold_the_same(self) -> None:
        clusters = [cluster(token="it's $HOME")]
        variables = local.connection_variables(clusters)
        assert json.loads(variables["AIRFLOW_CONN_RAY_LOCAL_1"]) == local.connections(clusters)["ray_local_1"]


class TestStatus:
    @pytest.mark.parametrize(
        ("session", "pid", "expected"),
        [
            ("session_1", None, "running"),
            ("session_1", 1, "head is gone"),
            ("session_0", None, "another cluster answers"),
        ],
    )
    def test_session_and_head_say_whether_a_cluster_is_still_ours(
        self,
        tmp_path: Path,
        stand_in: StandIn,
        started: list[local.LocalCluster],
        session: str,
        pid: int | None,
        expected: str,
    ) -> None:
        mine = start(started, stand_in("exec sleep 300"), tmp_path, "mine")
        count([mine], 1)
        with FakeDashboard() as fake:
            fake.session_name = "session_1"
            port = int(fake.url.rpartition(":")[2])
            write_state(
                tmp_path, replace(mine, session=session, pid=pid or mine.pid, ports=replace(mine.ports, dashboard=port))
            )
            assert [state for _, state in local.status(tmp_path)] == [expected]

    def test_head_that_does_not_answer(
        self, tmp_path: Path, stand_in: StandIn, started: list[local.LocalCluster]
    ) -> None:
        mine = start(started, stand_in("exec sleep 300"), tmp_path, "mine")
        with closing(listener(0)) as silent:
            write_state(tmp_path, replace(mine, ports=replace(mine.ports, dashboard=silent.getsockname()[1])))
            silent.close()
            assert [state for _, state in local.status(tmp_path)] == ["not answering"]


class TestProcesses:
    def test_stop_ends_what_left_the_session_and_nothing_else(
        self, tmp_path: Path, stand_in: StandIn, started: list[local.LocalCluster]
    ) -> None:
        ray = stand_in("sleep 300 & setsid sleep 300 & exec sleep 300")
        mine = start(started, ray, tmp_path, "mine")
        other = start(started, ray, tmp_path, "other")
        count([mine], 3)
        others = count([other], 3)
        head.stop([mine])
        assert not head.processes([mine])
        assert {process.pid for process in head.processes([other])} == {process.pid for process in others}

    def test_head_that_ignores_sigterm_is_killed(
        self,
        tmp_path: Path,
        stand_in: StandIn,
        started: list[local.LocalCluster],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(head, "STOP_SECONDS", 0.5)
        monkeypatch.setattr(head, "CHILDREN_SECONDS", 0.5)
        mine = start(started, stand_in("trap '' TERM; sleep 300; sleep 300"), tmp_path, "mine")
        count([mine], 2)
        head.stop([mine])
        assert not head.processes([mine])

    def test_process_without_the_marker_is_never_signalled(self, tmp_path: Path) -> None:
        with subprocess.Popen(["sleep", "300"]) as stranger:
            write_state(tmp_path, cluster(pid=stranger.pid))
            assert [state for _, state in local.status(tmp_path)] == ["stopped"]
            local.down(tmp_path)
            assert stranger.poll() is None
            stranger.kill()

    def test_a_process_that_starts_its_program_is_seen(
        self, tmp_path: Path, stand_in: StandIn, started: list[local.LocalCluster]
    ) -> None:
        mine = start(started, stand_in('exec "$0"'), tmp_path, "mine")
        assert [len(head.processes([mine])) for _ in range(100)] == [1] * 100

    def test_environment_is_private(
        self,
        tmp_path: Path,
        stand_in: StandIn,
        started: list[local.LocalCluster],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "AIRFLOW_CONN_X", "PYTHONPATH"):
            monkeypatch.setenv(name, "http://elsewhere")
        ray = stand_in("exec sleep 300")
        mine = start(started, ray, tmp_path, "mine")
        (process,) = count([mine], 1)
        environment = process.environ()
        assert "http://elsewhere" not in environment.values()
        assert environment["RAY_AUTH_MODE"] == "disabled"
        assert environment["HOME"] == process.cwd() == str(tmp_path / "mine" / "home")
        assert environment["PATH"].startswith(f"{Path(ray).parent}:")


class TestUp:
    def test_prefix_names_clusters_and_connections(self, tmp_path: Path) -> None:
        planned = local._plan(2, tmp_path, local.LocalOptions(prefix="gpu"))
        assert list(local.connections(planned)) == ["gpu_1", "gpu_2"]
        for each in planned:
            Path(each.temp_dir).rmdir()

    @pytest.mark.parametrize("prefix", ["", "1a", "a-b", "a b", "ä"])
    def test_prefix_that_cannot_name_a_variable_is_refused(self, prefix: str) -> None:
        with pytest.raises(local.LocalClusterError, match=r"prefix: got .*, expected a letter, then letters, digits"):
            local.LocalOptions(prefix=prefix)

    def test_head_that_dies_is_reported_and_the_others_are_stopped(self, tmp_path: Path, stand_in: StandIn) -> None:
        second = choose_ports(["a", "b"])[1].dashboard
        script = f"""case "$*" in *dashboard-port={second}*) echo 'no luck' >&2; exit 3;; esac; exec sleep 300"""
        options = local.LocalOptions(ray_executable=stand_in(script))
        expected = r"(?s)ray_local_2 exited with code 3.*ray_local_2\.log.*no luck"
        before = psutil.Process().children()
        with pytest.raises(local.LocalClusterError, match=expected):
            local.up(2, tmp_path / "state", options)
        assert psutil.Process().children() == before
        assert local.load(tmp_path / "state") == []

    def test_head_that_never_answers_is_reported_and_stopped(self, tmp_path: Path, stand_in: StandIn) -> None:
        options = local.LocalOptions(ray_executable=stand_in("echo slow; exec sleep 300"), timeout=0.5)
        seen: list[local.LocalCluster] = []
        expected = r"(?s)ray_local_1 was not ready after 0\.5 s \(.*no connection.*slow"
        with pytest.raises(local.LocalClusterError, match=expected):
            local.up(1, tmp_path / "state", options, lambda _: seen.extend(local.load(tmp_path / "state")))
        assert len(seen) == 1
        assert not head.processes(seen)
        assert not Path(seen[0].temp_dir).exists()

    def test_directory_with_running_clusters_is_refused(
        self, tmp_path: Path, stand_in: StandIn, started: list[local.LocalCluster]
    ) -> None:
        ray = stand_in("exec sleep 300")
        mine = start(started, ray, tmp_path, "mine")
        write_state(tmp_path, mine)
        with pytest.raises(local.LocalClusterError, match="already running"):
            local.up(1, tmp_path, local.LocalOptions(ray_executable=ray))
        assert len(head.processes([mine])) == 1

    def test_missing_ray_says_how_to_install_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        with pytest.raises(local.LocalClusterError, match=r"pip install 'airflow-provider-ray-fleet\[local\]'"):
            local.up(1, tmp_path)

    def test_number_of_tokens_must_be_the_number_of_clusters(self, tmp_path: Path, stand_in: StandIn) -> None:
        options = local.LocalOptions(ray_executable=stand_in("exit 1"), tokens=["a"])
        with pytest.raises(local.LocalClusterError, match="got 1 tokens for 2 clusters"):
            local.up(2, tmp_path / "state", options)
