"""Tuples per second of the processing job against the baseline that sends five tuples per actor call.

Both run as submitted jobs on one real head with two CPUs, in one run. Time counts from the request that submits the job
to the line of the driver's log with which the work is over, just before Serve starts; so the start-up of the job, its
runtime environment and its worker processes are in, and Serve is out for both.
"""

from __future__ import annotations

import json
import shlex
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from airflow_provider_ray.local import LocalCluster, local_clusters

ROOT = Path(__file__).parents[1]
OURS = ROOT / "ray_jobs" / "processing" / "parallel_processing.py"
BASELINE = ROOT / "benchmarks" / "baseline_processing" / "parallel_processing.py"
EXTENSIONS = ["txt", "py", "md", "ipynb", "yaml", "sh"]
WORK_IS_OVER = "Starting Serve"
MB = 1_000_000

# Name, script, tuples, tuple batch, repeats. The baseline's rate is that of its larger, faster run.
RUNS = (
    ("baseline-5k", BASELINE, 5_000, 5, 3),
    ("baseline-20k", BASELINE, 20_000, 5, 3),
    ("job-200k-by-5", OURS, 200_000, 5, 5),
    ("job-10m-by-1000", OURS, 10_000_000, 1000, 3),
)
REFERENCE = "baseline-20k"
GOALS = {"job-200k-by-5": 30, "job-10m-by-1000": 300}


class Memory:
    """The most memory that a job's driver, workers and replica had at once, object store included, in bytes.

    It is an upper bound: the object store is added to what the processes have resident, in which its pages and
    everything else that they share are counted once per process.
    """

    CLUSTER_OWN = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::ServeController", "ray::ProxyActor")

    def __init__(self, cluster: LocalCluster) -> None:
        self.head = psutil.Process(cluster.pid)
        self.peak = 0
        self.stopped = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self.watch)
        thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            thread.join()

    def watch(self) -> None:
        while not self.stopped.wait(0.1):
            self.peak = max(self.peak, sum(map(self.counted, self.head.children(recursive=True))))

    def counted(self, process: psutil.Process) -> int:
        try:
            command = " ".join(process.cmdline())
            if "raylet/raylet " in command:
                return shared_memory(process.pid)
            worker = command.startswith("ray::") and not command.startswith(self.CLUSTER_OWN)
            return int(process.memory_info().rss) if worker or OURS.name in command else 0
        except (psutil.NoSuchProcess, FileNotFoundError):
            return 0


def shared_memory(pid: int) -> int:
    """Bytes of shared memory that a process has touched; for the raylet this is the object store."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssShmem:"))


def call(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=60) as response:
        return json.load(response)


def parameters(cluster: LocalCluster, amount: int, tuple_batch: int) -> dict[str, Any]:
    return {
        "process-parameters": {"worker-number": 2, "actor-number": 2},
        "storage-parameters": {},
        "data-parameters": {
            "amount": amount,
            "lengths": [2, 3, 4, 5, 6, 7],
            "extensions": EXTENSIONS,
            "priority": {extension: number for number, extension in enumerate(EXTENSIONS, 1)},
            "tuple-batch": tuple_batch,
            "stats-batch": 5,
        },
        "serve-parameters": {"port": cluster.serve_port, "linger-seconds": 0},
    }


def run_job(cluster: LocalCluster, script: Path, amount: int, tuple_batch: int) -> dict[str, float]:
    """Run one job to its end and return its seconds until the work was over, its seconds in all and its peak memory."""
    argument = json.dumps(parameters(cluster, amount, tuple_batch))
    memory = Memory(cluster)
    with memory.watched():
        start = time.monotonic()
        body = {"entrypoint": shlex.join([sys.executable, str(script), argument])}
        submission_id = call("POST", f"{cluster.url}/api/jobs/", body)["submission_id"]
        log = Path(cluster.temp_dir, "session_latest", "logs", f"job-driver-{submission_id}.log")
        work = None
        while (status := call("GET", f"{cluster.url}/api/jobs/{submission_id}")["status"]) in ("PENDING", "RUNNING"):
            if work is None and log.exists() and WORK_IS_OVER in log.read_text():
                work = time.monotonic() - start
            time.sleep(0.02 if work is None else 0.2)
        total = time.monotonic() - start
    if status != "SUCCEEDED":
        raise RuntimeError(f"{script} ended {status}:\n{log.read_text()}")
    return {"seconds": work or total, "seconds_with_serve": total, "peak_memory_mb": memory.peak / MB}


def measure() -> dict[str, Any]:
    """Tuples per second of every case, and the ratios to the baseline's."""
    with local_clusters(1) as (cluster,):
        # Nobody's figure carries the first job of a fresh head, which connects its agent and starts Serve.
        run_job(cluster, BASELINE, 100, 5)
        run_job(cluster, OURS, 100, 5)
        result = measure_on(cluster)
    for name, row in result.items():
        row["ratio"] = row["tuples_per_second"] / result[REFERENCE]["tuples_per_second"]
        row["goal"] = GOALS.get(name)
    return {"reference": REFERENCE, "runs": result}


def measure_on(cluster: LocalCluster) -> dict[str, dict[str, Any]]:
    """Run every case in turns, so that a busy moment of the machine does not fall on one of them alone."""
    samples: dict[str, list[dict[str, float]]] = {name: [] for name, *_ in RUNS}
    for turn in range(max(repeats for *_, repeats in RUNS)):
        for name, script, amount, tuple_batch, repeats in RUNS:
            if turn < repeats:
                samples[name].append(run_job(cluster, script, amount, tuple_batch))
                print(f"{name:16} {samples[name][-1]['seconds']:6.2f} s", flush=True)
    return {name: summary(amount, samples[name]) for name, _, amount, _, _ in RUNS}


def summary(amount: int, samples: list[dict[str, float]]) -> dict[str, Any]:
    medians = {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}
    return {
        "tuples": amount,
        "tuples_per_second": amount / medians["seconds"],
        **medians,
        "peak_memory_mb": max(sample["peak_memory_mb"] for sample in samples),
        "samples": [sample["seconds"] for sample in samples],
    }
