"""Ray clusters on this host, for development, demonstrations and tests.

Each cluster is a real single-node Ray head with its own ports, temp dir, home and Serve port.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from airflow_provider_ray.client.sync import run_sync
from airflow_provider_ray.local import head
from airflow_provider_ray.local.cluster import LocalCluster, LocalOptions
from airflow_provider_ray.local.errors import LocalClusterError
from airflow_provider_ray.local.ports import choose_ports

__all__ = [
    "LocalCluster",
    "LocalClusterError",
    "LocalOptions",
    "connection_variables",
    "connections",
    "down",
    "load",
    "local_clusters",
    "status",
    "up",
]

STATE_FILE = "clusters.json"
# Ray puts Unix sockets in the temp dir. Their paths must stay under 108 characters, so TMPDIR is not used.
TEMP_ROOT = "/tmp"
DEFAULTS = LocalOptions()


def up(
    count: int,
    directory: str | Path,
    options: LocalOptions = DEFAULTS,
    progress: head.Progress = lambda line: None,
) -> list[LocalCluster]:
    """Start clusters and return them once each has run a job.

    The clusters outlive this process; `down` on the same directory stops them, from any process. If one of them fails
    to start, this call stops all the clusters it started.

    :param count: number of clusters.
    :param directory: folder for the state file and the logs of the heads; one set of clusters per directory.
    :param options: start options (default: LocalOptions()).
    :param progress: called with a line of text at each step (default: do nothing).
    :raises LocalClusterError: a port is in use, Ray is not installed, clusters of this directory are already running,
        or a head died or was not ready in time; the last two include the end of its log.
    """
    ray = head.find_ray(options.ray_executable)
    path = Path(directory).absolute()
    path.mkdir(parents=True, exist_ok=True)
    with _one_start_at_a_time():
        _discard_dead(path)
        clusters = _plan(count, path, options)
        try:
            _save(path, clusters)
            progress(f"Starting {count} Ray cluster{'s' * (count > 1)}; logs in {path}")
            for index, cluster in enumerate(clusters):
                clusters[index] = head.start(cluster, ray, options)
            _save(path, clusters)
            head.wait_until_ready(clusters, options.timeout, progress)
            clusters = [replace(each, session=_session(each)) for each in clusters]
            _save(path, clusters)
        except BaseException:
            _take_down(path, clusters)
            raise
    return clusters


def load(directory: str | Path) -> list[LocalCluster]:
    """Return the clusters that `up` recorded in the directory, whether or not they are running."""
    try:
        text = Path(directory, STATE_FILE).read_text()
    except FileNotFoundError:
        return []
    return [LocalCluster.from_json(value) for value in json.loads(text)]


def status(directory: str | Path) -> list[tuple[LocalCluster, str]]:
    """Return each cluster of the directory with its state.

    The state is "running", "not answering", "stopped", "head is gone" (some of its processes are left), or "another
    cluster answers": its port now belongs to a cluster that `up` did not start from this directory.
    """
    return [(cluster, _state(cluster)) for cluster in load(directory)]


def down(directory: str | Path, keep_temp_dir: bool = False) -> list[LocalCluster]:
    """Stop the clusters of the directory and return them; a directory without clusters is not an error.

    :param keep_temp_dir: keep Ray's temp dirs, which hold the logs of all processes (default False).
    :raises LocalClusterError: a process survived; the state file is kept, so `down` can be called again.
    """
    clusters = load(directory)
    _take_down(Path(directory), clusters, keep_temp_dir)
    for cluster in clusters:
        Path(cluster.log_file).unlink(missing_ok=True)
    return clusters


@contextlib.contextmanager
def local_clusters(count: int = 1, options: LocalOptions = DEFAULTS) -> Iterator[list[LocalCluster]]:
    """Run clusters for the duration of a `with` block.

    :raises LocalClusterError: see `up` and `down`; if a process survived, the directory is kept for `down`.
    """
    directory = tempfile.mkdtemp(prefix="ray-local-")
    try:
        yield up(count, directory, options)
    finally:
        down(directory)
        shutil.rmtree(directory)


def connections(clusters: Sequence[LocalCluster]) -> dict[str, dict[str, Any]]:
    """Return the Airflow connections by id, in the format of `airflow connections import`, including tokens."""
    return {cluster.name: _connection(cluster) for cluster in clusters}


def connection_variables(clusters: Sequence[LocalCluster]) -> dict[str, str]:
    """Return the Airflow connections as environment variables, including tokens."""
    named = connections(clusters).items()
    return {f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(value) for conn_id, value in named}


def _connection(cluster: LocalCluster) -> dict[str, Any]:
    return {
        "conn_type": "ray",
        "schema": "http",
        "host": "127.0.0.1",
        "port": cluster.ports.dashboard,
        **({"password": cluster.token} if cluster.token else {}),
        "extra": {"serve_url": cluster.serve_url},
    }


def _plan(count: int, path: Path, options: LocalOptions) -> list[LocalCluster]:
    tokens = options.tokens or [None] * count
    if len(tokens) != count:
        raise LocalClusterError(f"got {len(tokens)} tokens for {count} clusters; expected one per cluster")
    names = [f"{options.prefix}_{number}" for number in range(1, count + 1)]
    ports = choose_ports(names)
    return [
        LocalCluster(
            name=name,
            ports=own_ports,
            marker=secrets.token_hex(8),
            temp_dir=tempfile.mkdtemp(prefix="ray-local-", dir=TEMP_ROOT),
            log_file=str(path / f"{name}.log"),
            token=token,
        )
        for name, own_ports, token in zip(names, ports, tokens, strict=True)
    ]


def _discard_dead(path: Path) -> None:
    left = load(path)
    if head.processes(left):
        raise LocalClusterError(f"clusters in {path} are already running; stop them first")
    _take_down(path, left)


def _take_down(path: Path, clusters: Sequence[LocalCluster], keep_temp_dir: bool = False) -> None:
    head.stop(clusters)
    for cluster in clusters:
        if not keep_temp_dir and Path(cluster.temp_dir).exists():
            shutil.rmtree(cluster.temp_dir)
    Path(path, STATE_FILE).unlink(missing_ok=True)


def _state(cluster: LocalCluster) -> str:
    session = _session(cluster)
    if cluster.session and session not in (None, cluster.session):
        return "another cluster answers"
    running = {process.pid for process in head.processes([cluster])}
    if cluster.pid not in running:
        return "head is gone" if running else "stopped"
    return "running" if session else "not answering"


def _session(cluster: LocalCluster) -> str | None:
    return run_sync(partial(head.answering_session, cluster))


def _save(path: Path, clusters: Sequence[LocalCluster]) -> None:
    """Write the state file atomically, readable only by its owner because it contains tokens."""
    descriptor, draft = tempfile.mkstemp(dir=path)
    with open(descriptor, "w") as stream:
        json.dump([asdict(cluster) for cluster in clusters], stream, indent=2)
    os.replace(draft, path / STATE_FILE)


@contextlib.contextmanager
def _one_start_at_a_time() -> Iterator[None]:
    """Serialize starts by the same user: ports stay free until the heads are up, so two starts could pick the same."""
    lock_file = Path(TEMP_ROOT, f"airflow-ray-local-{os.getuid()}.lock")
    descriptor = os.open(lock_file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
