"""Runs the fan-out Dag once, follows its progress, and reports the result."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dev.airflow_api import UNFINISHED, AirflowApi, ApiError
from dev.airflow_processes import StackError

if TYPE_CHECKING:
    from dev.airflow_stack import AirflowStack

DAG_ID = "ray_processing_fan_out"
# Transient states that are not worth printing.
SILENT = (None, "scheduled", "queued")
RUN_SECONDS = 3600
LOG_LINES = 15


class Stopwatch:
    """Measures the phases of a demo in seconds."""

    def __init__(self) -> None:
        self._begins: list[tuple[str, float]] = []

    def phase(self, name: str) -> None:
        """Begin a phase, and end the previous one if there is one."""
        self._begins.append((name, time.monotonic()))

    def seconds(self) -> float:
        """Return the seconds since the current phase began."""
        return time.monotonic() - self._begins[-1][1]

    def report(self) -> None:
        """Print how long each phase took."""
        ends = [begin for _, begin in self._begins[1:]] + [time.monotonic()]
        phases = [f"{name} {end - begin:.1f}" for (name, begin), end in zip(self._begins, ends, strict=True)]
        print(f"Seconds: {', '.join(phases)}", flush=True)


def run_dag(stack: AirflowStack, conf: Mapping[str, Any], out: Path) -> int:
    """Trigger the Dag, follow it to the end, write ``summary.json`` and ``summary.png``, and return the exit code.

    :param stack: an Airflow with connections to the clusters.
    :param conf: conf of the run.
    :param out: folder for the results.
    """
    api = stack.api
    run_id = api.trigger(DAG_ID, conf)
    print(f"Triggered {DAG_ID}: {run_id}", flush=True)
    run = _follow(stack, run_id)
    clusters = _xcom(api, run_id, "fan_out.merge") or {}
    _write_summary(out, run, clusters)
    if run["state"] != "success":
        _explain(stack, run_id)
        return 1
    (out / "summary.png").write_bytes(b64decode(api.xcom(DAG_ID, run_id, "draw", key="ray_picture")))
    _print_table(clusters)
    print(f"Run {run_id}: {run['state']} in {_seconds(run):.1f} s")
    print(f"Results: {out / 'summary.json'}, {out / 'summary.png'}", flush=True)
    return 0


def _follow(stack: AirflowStack, run_id: str) -> dict[str, Any]:
    """Print a line for each state change until the run has ended, and return the run."""
    begin = time.monotonic()
    seen: dict[tuple[str, int], str | None] = {}
    while True:
        run = stack.api.run(DAG_ID, run_id)
        for task in stack.api.task_instances(DAG_ID, run_id):
            key = (task["task_id"], task["map_index"])
            if task["state"] not in SILENT and task["state"] != seen.get(key):
                seen[key] = task["state"]
                print(f"{time.monotonic() - begin:7.1f} s  {_name(task):32} {task['state']}", flush=True)
        if run["state"] not in UNFINISHED:
            return run
        if time.monotonic() - begin > RUN_SECONDS:
            raise StackError(f"run {run_id} is still {run['state']} after {RUN_SECONDS} s; logs in {stack.log_folder}")
        stack.check()
        time.sleep(1)


def _name(task: Mapping[str, Any]) -> str:
    name: str = task["task_id"].rpartition(".")[2]
    return name if task["map_index"] < 0 else f"{name} [{task['rendered_map_index'] or task['map_index']}]"


def _write_summary(out: Path, run: Mapping[str, Any], clusters: Mapping[str, Any]) -> None:
    summary = {
        "run_id": run["dag_run_id"],
        "state": run["state"],
        "seconds": round(_seconds(run), 3),
        "clusters": clusters,
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def _print_table(clusters: Mapping[str, Any]) -> None:
    print(f"\n{'connection':14} {'submission id':64} {'status':10} {'tuples':>8} {'summaries':>9} {'seconds':>8}")
    for conn_id, result in clusters.items():
        summaries = (result["output"] or {"output": []})["output"]
        tuples = sum(sum(summary["counts"]) for summary in summaries)
        print(
            f"{conn_id:14} {result['submission_id'] or '':64} {result['status']:10} {tuples:>8}"
            f" {len(summaries):>9} {result['seconds'] or 0:>8.1f}"
        )
    print()


def _explain(stack: AirflowStack, run_id: str) -> None:
    """Print which tasks failed and the end of their logs."""
    for task in stack.api.task_instances(DAG_ID, run_id):
        if task["state"] != "failed":
            continue
        tries = {"try_number": task["try_number"], "map_index": task["map_index"]}
        lines = "\n".join(stack.api.log(DAG_ID, run_id, task["task_id"], **tries)).splitlines()[-LOG_LINES:]
        print(f"\nFailed: {task['task_id']} map_index={task['map_index']} try {task['try_number']}")
        print("\n".join(f"  {line}" for line in lines))
    print(f"\nAll logs: {stack.log_folder}", flush=True)


def _xcom(api: AirflowApi, run_id: str, task_id: str) -> Any:
    try:
        return api.xcom(DAG_ID, run_id, task_id)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def _seconds(run: Mapping[str, Any]) -> float:
    begin, end = (datetime.fromisoformat(run[key]) for key in ("start_date", "end_date"))
    return (end - begin).total_seconds()
