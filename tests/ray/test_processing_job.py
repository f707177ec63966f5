"""The processing job on a real Ray head that has one CPU, the smallest it must do with."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from airflow_provider_ray.local import LocalCluster, LocalOptions, local_clusters

PROCESSING = Path(__file__).parents[2] / "ray_jobs" / "processing"
TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")
FOREIGN = """
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0})
class Foreign:
    def __call__(self, request):
        return "foreign"

serve.start(http_options={"port": %d})
serve.run(Foreign.bind(), name="foreign", route_prefix="/foreign")
"""
# Waits for all the others before it starts Serve.
STARTS_SERVE = """
import sys, time
from pathlib import Path
import ray
from functions.parameters import ServeParameters
from serve.application import start_serve

name, directory, number_of_runs, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
ray.init()
(directory / name).touch()
while len(list(directory.iterdir())) < number_of_runs:
    time.sleep(0.001)
start_serve(ServeParameters(name, "/" + name, None, port, 0.0))
"""

T = TypeVar("T")

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[LocalCluster]:
    with local_clusters(1, LocalOptions(num_cpus=1)) as (cluster,):
        yield cluster


@pytest.fixture(scope="module")
def working_dir(ray_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The job's directory as a package on the cluster."""
    archive = shutil.make_archive(str(tmp_path_factory.mktemp("package") / "processing"), "zip", PROCESSING)
    call("PUT", f"{ray_cluster.url}/api/packages/gcs/processing_job.zip", Path(archive).read_bytes())
    return "gcs://processing_job.zip"


@pytest.fixture
def submit(ray_cluster: LocalCluster, working_dir: str) -> Iterator[Callable[..., str]]:
    """Submit jobs, and stop those that a test leaves behind."""
    submitted: list[str] = []

    def submit_job(parameters: dict[str, Any] | None = None, entrypoint: list[str] | None = None) -> str:
        argv = entrypoint or ["python", "parallel_processing.py", json.dumps(parameters)]
        body = {"entrypoint": shlex.join(argv), "runtime_env": {"working_dir": working_dir}}
        _, answer = call("POST", f"{ray_cluster.url}/api/jobs/", json.dumps(body).encode())
        submitted.append(json.loads(answer)["submission_id"])
        return submitted[-1]

    yield submit_job
    for submission_id in submitted:
        call("POST", f"{ray_cluster.url}/api/jobs/{submission_id}/stop")
        wait_job(ray_cluster, submission_id)


def call(method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def eventually(look: Callable[[], T | None], seconds: float = 90) -> T:
    """Return the first result of `look` that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := look():
            return result
        time.sleep(0.2)
    raise TimeoutError(f"nothing after {seconds} s")


def wait_job(cluster: LocalCluster, submission_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = json.loads(call("GET", f"{cluster.url}/api/jobs/{submission_id}")[1])
        return job if job["status"] in TERMINAL else None

    return eventually(look)


def log(cluster: LocalCluster, submission_id: str) -> str:
    text: str = json.loads(call("GET", f"{cluster.url}/api/jobs/{submission_id}/logs")[1])["logs"]
    return text


def applications(cluster: LocalCluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call("GET", f"{cluster.url}/api/serve/applications/")[1])["applications"]
    return found


def fetch_output(cluster: LocalCluster, prefix: str) -> list[dict[str, Any]]:
    def look() -> list[dict[str, Any]] | None:
        try:
            status, body = call("GET", f"{cluster.serve_url}{prefix}/output")
        except OSError:
            return None
        return json.loads(body)["output"] if status == 200 else None

    return eventually(look)


def parameters(cluster: LocalCluster, amount: int = 53, linger: float = 120, **more: Any) -> dict[str, Any]:
    extensions = ["txt", "py", "md", "ipynb", "yaml", "sh"]
    data = {
        "amount": amount,
        "lengths": [2, 3, 4, 5, 6, 7],
        "extensions": extensions,
        "priority": {extension: number for number, extension in enumerate(extensions, 1)},
        "tuple-batch": 5,
        "stats-batch": 3,
    }
    serve = {"port": cluster.serve_port, "linger-seconds": linger, **more.pop("serve", {})}
    return {
        "process-parameters": {"worker-number": 2, "actor-number": 2},
        "storage-parameters": {},
        "data-parameters": data | more,
        "serve-parameters": serve,
    }


def assert_complete(output: list[dict[str, Any]], offset: int, amount: int) -> None:
    """Every seed once: the counts, the sum and the sum of squares of the batches are those of the range."""
    counts = [count for summary in output for count in summary["counts"]]
    means = [mean for summary in output for mean in summary["seed"]["mean"]]
    variances = [variance for summary in output for variance in summary["seed"]["variance"]]
    batches = list(zip(counts, means, variances, strict=True))
    assert sum(counts) == amount
    assert round(sum(n * mean for n, mean, _ in batches)) == sum(range(offset, offset + amount))
    squares = sum(seed * seed for seed in range(offset, offset + amount))
    assert sum(n * (mean * mean + variance) for n, mean, variance in batches) == pytest.approx(squares, rel=1e-12)


def test_runs_that_start_serve_in_the_same_instant_all_use_the_same(
    ray_cluster: LocalCluster, submit: Callable[..., str], tmp_path: Path
) -> None:
    """First of all tests, as nobody ends the Serve of a cluster."""
    assert call("GET", f"{ray_cluster.url}/api/serve/applications/")[0] != 200 or not applications(ray_cluster)
    arguments = [str(tmp_path), "4", str(ray_cluster.serve_port)]
    started = [submit(entrypoint=["python", "-c", STARTS_SERVE, f"run{number}", *arguments]) for number in range(4)]
    ends = [wait_job(ray_cluster, each) for each in started]
    assert [job["status"] for job in ends] == ["SUCCEEDED"] * 4, [log(ray_cluster, each) for each in started]


def test_two_runs_at_once_serve_their_own_output_until_each_is_released(
    ray_cluster: LocalCluster, submit: Callable[..., str]
) -> None:
    first = submit(parameters(ray_cluster, 53, serve={"application": "first"}))
    second = submit(parameters(ray_cluster, 101, offset=1000, serve={"application": "second", "route-prefix": "/b/2"}))
    with ThreadPoolExecutor() as pool:
        outputs = list(pool.map(lambda prefix: fetch_output(ray_cluster, prefix), ("/first", "/b/2")))
    assert_complete(outputs[0], 0, 53)
    assert_complete(outputs[1], 1000, 101)
    assert [summary["id"] for summary in outputs[0]] == ["1-1-1", "1-1-2", "2-2-1", "2-2-2"]
    assert outputs[0][1] == outputs[0][1] | {"workers": [1] * 3, "actors": [1] * 3, "batches": [4, 5, 6]}
    assert outputs[0][1]["counts"] == [5, 5, 2]

    assert call("POST", f"{ray_cluster.serve_url}/first/release") == (200, b'{"released":true}')
    assert wait_job(ray_cluster, first)["status"] == "SUCCEEDED"
    assert "Job success:True" in log(ray_cluster, first)
    assert call("GET", f"{ray_cluster.serve_url}/first/output")[0] == 404
    assert fetch_output(ray_cluster, "/b/2") == outputs[1]

    assert call("POST", f"{ray_cluster.serve_url}/b/2/release")[0] == 200
    assert wait_job(ray_cluster, second)["status"] == "SUCCEEDED"
    assert applications(ray_cluster) == {}


def test_the_same_input_gives_the_same_output(ray_cluster: LocalCluster, submit: Callable[..., str]) -> None:
    outputs = []
    for name in ("once", "again"):
        submission_id = submit(parameters(ray_cluster, 5000, serve={"application": name}))
        outputs.append(fetch_output(ray_cluster, f"/{name}"))
        call("POST", f"{ray_cluster.serve_url}/{name}/release")
        wait_job(ray_cluster, submission_id)
    assert outputs[0] == outputs[1]


def test_without_a_release_the_run_ends_by_itself(ray_cluster: LocalCluster, submit: Callable[..., str]) -> None:
    submission_id = submit(parameters(ray_cluster, linger=0))
    assert wait_job(ray_cluster, submission_id)["status"] == "SUCCEEDED"
    assert applications(ray_cluster) == {}


def test_what_is_not_a_route_is_answered_in_json(ray_cluster: LocalCluster, submit: Callable[..., str]) -> None:
    submit(parameters(ray_cluster, serve={"application": "routes"}))
    fetch_output(ray_cluster, "/routes")
    assert call("GET", f"{ray_cluster.serve_url}/routes/nothing") == (404, b'{"detail":"Not Found"}')
    assert call("GET", f"{ray_cluster.serve_url}/routes/release") == (405, b'{"detail":"Method Not Allowed"}')


def test_stopping_the_job_deletes_its_application(ray_cluster: LocalCluster, submit: Callable[..., str]) -> None:
    submission_id = submit(parameters(ray_cluster, serve={"application": "stopped"}))
    fetch_output(ray_cluster, "/stopped")
    call("POST", f"{ray_cluster.url}/api/jobs/{submission_id}/stop")
    assert wait_job(ray_cluster, submission_id)["status"] == "STOPPED"
    eventually(lambda: "stopped" not in applications(ray_cluster), 10)


def test_a_name_or_a_route_in_use_fails_the_newcomer_only(
    ray_cluster: LocalCluster, submit: Callable[..., str]
) -> None:
    submit(parameters(ray_cluster, 53, serve={"application": "mine"}))
    mine = fetch_output(ray_cluster, "/mine")
    foreign = submit(entrypoint=["python", "-c", FOREIGN % ray_cluster.serve_port])
    assert wait_job(ray_cluster, foreign)["status"] == "SUCCEEDED"

    clashes = {
        "serve-parameters.application mine is already in use by another run": {
            "application": "mine",
            "route-prefix": "/x",
        },
        "serve-parameters.application foreign is already in use on this cluster": {"application": "foreign"},
        "Serve rejected serve-parameters.route-prefix /mine": {"route-prefix": "/mine"},
    }
    jobs = {message: submit(parameters(ray_cluster, 7, serve=serve)) for message, serve in clashes.items()}
    for message, submission_id in jobs.items():
        job = wait_job(ray_cluster, submission_id)
        assert (job["status"], job["driver_exit_code"]) == ("FAILED", 1)
        assert message in log(ray_cluster, submission_id)
    assert fetch_output(ray_cluster, "/mine") == mine
    assert call("GET", f"{ray_cluster.serve_url}/foreign") == (200, b"foreign")
    assert set(applications(ray_cluster)) == {"mine", "foreign"}


def test_a_port_other_than_that_of_the_running_serve_is_refused(
    ray_cluster: LocalCluster, submit: Callable[..., str]
) -> None:
    wait_job(ray_cluster, submit(parameters(ray_cluster, linger=0)))
    submission_id = submit(parameters(ray_cluster, serve={"port": 9}))
    assert wait_job(ray_cluster, submission_id)["driver_exit_code"] == 1
    running = f"but Serve is already running on port {ray_cluster.serve_port} of this cluster"
    assert f"serve-parameters.port is 9, {running}" in log(ray_cluster, submission_id)


def test_bad_parameters_fail_the_job_before_it_joins_the_cluster(
    ray_cluster: LocalCluster, submit: Callable[..., str]
) -> None:
    submission_id = submit(parameters(ray_cluster, amount=1))
    job = wait_job(ray_cluster, submission_id)
    assert (job["status"], job["driver_exit_code"], job["job_id"]) == ("FAILED", 2, None)
    assert "process-parameters.worker-number is 2; expected at most data-parameters.amount (1)" in log(
        ray_cluster, submission_id
    )


def test_work_that_is_lost_fails_the_job_and_leaves_no_application(
    ray_cluster: LocalCluster, submit: Callable[..., str]
) -> None:
    before = set(applications(ray_cluster))
    submission_id = submit(parameters(ray_cluster, 4_000_000, lengths=[255], serve={"application": "lost"}))
    os.kill(eventually(lambda: provider_process(ray_cluster)), signal.SIGKILL)
    job = wait_job(ray_cluster, submission_id)
    assert (job["status"], job["driver_exit_code"]) == ("FAILED", 1)
    assert "ActorDiedError" in log(ray_cluster, submission_id)
    assert set(applications(ray_cluster)) == before


def provider_process(cluster: LocalCluster) -> int | None:
    """Process id of a Provider actor that is alive."""
    answer = json.loads(call("GET", f"{cluster.url}/api/v0/actors?detail=true")[1])
    actors = answer["data"]["result"]["result"]
    return next((a["pid"] for a in actors if a["class_name"] == "Provider" and a["state"] == "ALIVE"), None)
