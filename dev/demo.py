"""The demo: start three Ray clusters and Airflow, run the fan-out Dag once, and take everything down.

Run as ``python -m dev.demo run|up|status|down``; all output goes below ``out/``.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from airflow_provider_ray import local
from airflow_provider_ray.local.head import processes
from dev import airflow_processes, airflow_stack
from dev.airflow_processes import StackError
from dev.airflow_stack import AirflowStack
from dev.conf import ConfError, read_conf
from dev.run import DAG_ID, Stopwatch, run_dag

ROOT = Path(__file__).resolve().parent.parent
DAGS = ROOT / "dags"
OUT = ROOT / "out"
DEMO, KEPT = "demo", "up"
CLUSTERS = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(conf_text: str, directory: Path) -> int:
    """Run the demo from start to finish and return the exit code."""
    conf = read_conf(conf_text, DAGS)
    refuse_running(directory)
    watch = Stopwatch()
    try:
        stack = start(directory, watch)
        watch.phase("run")
        return run_dag(stack, conf, directory)
    finally:
        watch.phase("take-down")
        take_down(directory)
        watch.report()


def up(directory: Path) -> int:
    """Start everything and leave it running; if it is running already, say where."""
    if not is_running(directory):
        try:
            start(directory, Stopwatch())
        except BaseException:
            take_down(directory)
            raise
    return status(directory)


def status(directory: Path) -> int:
    """Print where everything is and how to log in; the exit code is 1 if something is not running."""
    if not is_running(directory):
        print("Nothing is running; start it with:  make up")
        return 1
    home, clusters = directory / "airflow", local.status(directory / "ray")
    has_airflow = bool(airflow_processes.processes(home))
    if has_airflow:
        url, password = airflow_stack.login(home)
        print(f"Airflow:       {url} (user {airflow_stack.USER}, password {password})")
        print(f"Demo Dag:      {url}/dags/{DAG_ID}")
    else:
        print("Airflow:       not running")
    for cluster, state in clusters:
        print(f"{cluster.name}:   {cluster.url} ({state})")
    print(f"Your Dags:     save them in {DAGS}")
    print(f"Airflow's CLI: AIRFLOW_HOME={home} {Path(sys.executable).with_name('airflow')} dags list")
    print(f"Logs:          {directory}\nStop with:     make down")
    return 0 if has_airflow and all(state == "running" for _, state in clusters) else 1


def down(out: Path) -> int:
    """Stop what `up` started, or what a killed demo left running."""
    for directory in (out / KEPT, out / DEMO):
        found = bool(airflow_processes.processes(directory / "airflow")) or bool(local.load(directory / "ray"))
        take_down(directory)
        print(f"{directory}: {'stopped' if found else 'nothing was running'}")
    return 0


def start(directory: Path, watch: Stopwatch) -> AirflowStack:
    """Start clusters, and an Airflow with connections to them, in an empty directory."""
    shutil.rmtree(directory, ignore_errors=True)
    stack = AirflowStack(directory / "airflow", {"dags": DAGS})
    watch.phase("start")
    _tell(f"Starting Airflow; logs in {stack.log_folder}")
    stack.start()
    clusters = local.up(CLUSTERS, directory / "ray", progress=_tell)
    stack.wait_until_healthy()
    stack.api.add_connections(local.connections(clusters))
    stack.wait_for_dags([DAG_ID])
    _tell(f"Airflow is healthy at {stack.url} after {watch.seconds():.0f} s")
    return stack


def take_down(directory: Path) -> None:
    """Stop everything in the directory; a second Ctrl-C does not interrupt this."""
    before = {number: signal.signal(number, _say_patience) for number in SIGNALS}
    _tell("Stopping Airflow and the Ray clusters")
    try:
        airflow_processes.stop(directory / "airflow")
    finally:
        try:
            local.down(directory / "ray")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def is_running(directory: Path) -> bool:
    """Whether any process of the Airflow or the clusters of this directory is left."""
    return bool(airflow_processes.processes(directory / "airflow") or processes(local.load(directory / "ray")))


def refuse_running(directory: Path) -> None:
    if is_running(directory):
        raise StackError(f"{directory} is already in use; run 'make down' to stop what is running there")


def _tell(line: str) -> None:
    print(line, flush=True)


def _say_patience(number: int, frame: FrameType | None) -> None:
    print("Shutting down, please wait", file=sys.stderr, flush=True)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def end_on_signals() -> None:
    """Make this process exit cleanly on SIGINT, SIGTERM and SIGHUP, so that it stops what it started."""
    for number in SIGNALS:
        signal.signal(number, _exit)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dev.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help=f"output folder (default: {OUT})")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="start everything, run the Dag once, stop everything")
    one.add_argument("--conf", default="{}", help="conf of the Dag run as a JSON object (default: {})")
    commands.add_parser("up", help="start everything and leave it running")
    commands.add_parser("status", help="say where it runs and how to log in")
    commands.add_parser("down", help="stop what 'up' started")
    chosen = parser.parse_args(arguments)
    end_on_signals()
    try:
        if chosen.command == "run":
            return run(chosen.conf, chosen.out / DEMO)
        if chosen.command == "down":
            return down(chosen.out)
        return {"up": up, "status": status}[chosen.command]((chosen.out / KEPT).absolute())
    except (ConfError, StackError, local.LocalClusterError) as error:
        print(f"Failed: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfError) else 1


if __name__ == "__main__":
    sys.exit(main())
