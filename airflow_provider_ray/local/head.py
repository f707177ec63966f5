"""A Ray head as a child process: start it, find its processes, check that it runs a job, stop it.

Its processes are recognized by a marker in their environment. Only processes with the marker are ever signaled, so
other Ray clusters on the host are safe, and processes that outlive their head are still found.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from airflow_provider_ray.client.api.access import Access
from airflow_provider_ray.client.api.http import Http
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayAuthError, RayError, RayNotFound
from airflow_provider_ray.client.states import SUCCEEDED, is_terminal
from airflow_provider_ray.client.sync import run_sync
from airflow_provider_ray.local.errors import LocalClusterError

if TYPE_CHECKING:
    from airflow_provider_ray.local.cluster import LocalCluster, LocalOptions

MARKER = "AIRFLOW_RAY_LOCAL_CLUSTER"
# Ray replaces 127.0.0.1 with the host's external address but leaves other loopback addresses alone.
NODE_IP = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
NOT_INHERITED = ("AIRFLOW_", "RAY_", "PYTHON")
STOP_SECONDS, CHILDREN_SECONDS, KILL_SECONDS, LOOK_SECONDS = 10.0, 3.0, 10.0, 0.3
FORGET_SECONDS = 2.0
EMPTY_LOOKS, EMPTY_SECONDS = 5, 0.005
LOG_LINES = 30

Progress = Callable[[str], None]


def find_ray(executable: str | None = None) -> str:
    """Return the absolute path of the `ray` command.

    :raises LocalClusterError: there is no such command.
    """
    path = Path(executable).absolute() if executable else Path(sys.executable).with_name("ray")
    if not os.access(path, os.X_OK):
        hint = "" if executable else "; pip install 'airflow-provider-ray-fleet[local]'"
        raise LocalClusterError(f"Ray is not installed: {path} is not an executable file{hint}")
    return str(path)


def start(cluster: LocalCluster, ray: str, options: LocalOptions) -> LocalCluster:
    """Start the head of a planned cluster and return the cluster with the head's process id."""
    home = Path(cluster.temp_dir, "home")
    home.mkdir()
    with open(cluster.log_file, "wb") as log:
        head = subprocess.Popen(
            _command(cluster, ray, options),
            env=_environment(cluster, ray, options),
            cwd=home,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    # The head outlives this object; without a return code, Popen would warn that the process is still running.
    head.returncode = 0
    return replace(cluster, pid=head.pid)


def _command(cluster: LocalCluster, ray: str, options: LocalOptions) -> list[str]:
    return [
        *(ray, "start", "--head", "--block", "--disable-usage-stats", "--log-color=false"),
        *(f"--node-ip-address={NODE_IP}", "--dashboard-host=127.0.0.1", f"--temp-dir={cluster.temp_dir}"),
        *cluster.ports.arguments(),
        *(f"--num-cpus={options.num_cpus}", f"--memory={options.memory}"),
        f"--object-store-memory={options.object_store_memory}",
    ]


def _environment(cluster: LocalCluster, ray: str, options: LocalOptions) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token} if cluster.token else {}
    return {
        **inherited,
        "PATH": os.pathsep.join([os.path.dirname(ray), inherited.get("PATH", os.defpath)]),
        "HOME": str(Path(cluster.temp_dir, "home")),
        "RAY_AUTH_MODE": "disabled",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # The monitor watches the memory of the entire host and would kill workers of every head.
        "RAY_memory_monitor_refresh_ms": "0",
        # On a busy host, Serve would otherwise kill a slow proxy as dead after five seconds.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
        **cluster.ports.environment(),
        **options.env,
        **token,
        # Without this, Ray's process titles overwrite the environment, including the marker.
        "SPT_NOENV": "1",
        MARKER: cluster.marker,
    }


def wait_until_ready(clusters: Sequence[LocalCluster], timeout: float, progress: Progress) -> None:
    """Wait until each cluster has run a job; an HTTP server that answers proves nothing.

    :raises LocalClusterError: a head died or was not ready after `timeout` seconds.
    """
    begin = time.monotonic()
    waiting = {cluster.name: cluster for cluster in clusters}
    while waiting:
        for cluster in list(waiting.values()):
            problem = _not_ready(cluster)
            if problem is None:
                del waiting[cluster.name]
                progress(f"{cluster.name} is ready at {cluster.url} after {time.monotonic() - begin:.0f} s")
            elif time.monotonic() - begin > timeout:
                raise _failure(cluster, f"was not ready after {timeout:g} s ({problem})")
        time.sleep(LOOK_SECONDS)


def _not_ready(cluster: LocalCluster) -> str | None:
    exit_code = _exit_code(cluster)
    if exit_code is not None:
        raise _failure(cluster, f"exited with code {exit_code}")
    try:
        return run_sync(partial(_trial, cluster))
    except RayError as error:
        return str(error)


async def _trial(cluster: LocalCluster) -> str | None:
    """Advance the trial job by one step; return None once it has succeeded and its record is deleted."""
    name = f"ready-{cluster.marker}"
    async with RayClient(ClusterConfig(url=cluster.url, token=cluster.token)) as client:
        try:
            job = await client.jobs.get(name)
        except RayNotFound:
            await _ask_agent(cluster)
            await client.jobs.submit(JobSpec(entrypoint="echo ready", submission_id=name))
            return "the trial job has been submitted"
        if not is_terminal(job.status):
            return f"the trial job is {job.status}"
        if job.status != SUCCEEDED:
            raise _failure(cluster, f"could not run a job: {job.message}")
        # Ray's monitor checks once a second; if the record is gone by then, it writes a FAILED one.
        if time.time() - (job.end_time_ms or 0) / 1000 < FORGET_SECONDS:
            return "the trial job has just ended"
        await client.jobs.delete(name)
    await _check_token(cluster)
    return None


async def _ask_agent(cluster: LocalCluster) -> None:
    """Check that the agent answers: submitting without an agent would block the dashboard for ten seconds.

    :raises RayRequestError: the agent does not answer.
    """
    address = f"http://{NODE_IP}:{cluster.ports.agent}"
    async with (
        Http(Access(ClusterConfig(url=address, token=cluster.token)), attrgetter("dashboard")) as agent,
        agent.open("GET", "/api/local_raylet_healthz") as answer,
    ):
        await answer.read()


async def _check_token(cluster: LocalCluster) -> None:
    if cluster.token is None:
        return
    async with RayClient(ClusterConfig(url=cluster.url)) as stranger:
        try:
            await stranger.cluster.version()
        except RayAuthError:
            return
    raise _failure(cluster, "answers without its token; token authentication needs Ray 2.52 or newer")


async def answering_session(cluster: LocalCluster) -> str | None:
    """Return the session of whatever answers at the address of the cluster; None if nothing answers as Ray does."""
    async with RayClient(ClusterConfig(url=cluster.url, token=cluster.token)) as client:
        try:
            return (await client.cluster.version()).session_name
        except RayError:
            return None


def _exit_code(cluster: LocalCluster) -> int | None:
    if cluster.pid is None:
        return None
    ended, wait_status = os.waitpid(cluster.pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(wait_status) if ended else None


def _failure(cluster: LocalCluster, what: str) -> LocalClusterError:
    lines = Path(cluster.log_file).read_text(errors="replace").splitlines()[-LOG_LINES:]
    tail = "\n".join(["", f"Last lines of {cluster.log_file}:", *lines]) if lines else ""
    return LocalClusterError(f"{cluster.name} {what}{tail}")


def processes(clusters: Sequence[LocalCluster]) -> list[psutil.Process]:
    """Return all running processes of the clusters, even if their parents are gone."""
    return processes_with(MARKER, [cluster.marker for cluster in clusters])


def processes_with(variable: str, values: Collection[str]) -> list[psutil.Process]:
    """Return all running processes whose environment sets the variable to one of the values."""
    environments = {process: _environment_of(process) for process in psutil.process_iter()}
    for look in range(EMPTY_LOOKS):
        # Linux briefly shows an empty environment while a process starts its program; for some it stays empty.
        if empty := [process for process, environment in environments.items() if environment == {}]:
            time.sleep(EMPTY_SECONDS * 2**look)
            environments |= {process: _environment_of(process) for process in empty}
    return [process for process, environment in environments.items() if (environment or {}).get(variable) in values]


def _environment_of(process: psutil.Process) -> dict[str, str] | None:
    try:
        environment: dict[str, str] = process.environ()
    except psutil.Error:
        # It has ended in the meantime, or it belongs to another user and so is not ours.
        return None
    return environment


def stop(clusters: Sequence[LocalCluster]) -> None:
    """Stop every process of the clusters: send SIGTERM to the heads, and soon after SIGKILL to what is left.

    :raises LocalClusterError: a process survived.
    """
    pids = {cluster.pid for cluster in clusters}
    heads = [process for process in processes(clusters) if process.pid in pids]
    for process in heads:
        _signal(process.terminate)
    psutil.wait_procs(heads, timeout=STOP_SECONDS)
    # A head that stops takes its cluster with it. If it was killed, Ray's agents would linger for a minute.
    kill_at = time.monotonic() + CHILDREN_SECONDS
    while left := processes(clusters):
        psutil.wait_procs(left, timeout=LOOK_SECONDS)
        if time.monotonic() > kill_at + KILL_SECONDS:
            raise LocalClusterError(f"processes survived SIGKILL: {[process.pid for process in left]}")
        if time.monotonic() > kill_at:
            for process in left:
                _signal(process.kill)
    # A process that is about to exit no longer has an environment. Only the process that started a head is its parent.
    psutil.wait_procs([child for child in psutil.Process().children() if child.pid in pids], timeout=KILL_SECONDS)


def _signal(send: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        send()
