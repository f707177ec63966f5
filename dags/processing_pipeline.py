"""The processing job over several clusters, as the Dags of this folder share it.

``plan`` divides the work, one task group per cluster submits the job, collects what its Serve application answers,
releases the job and waits for its end, ``merge`` puts the answers together by cluster, and ``draw`` draws them.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from airflow.sdk import Param, XComArg, task, task_group

from airflow_provider_ray.operators.job import RaySubmitJobOperator
from airflow_provider_ray.operators.serve import RayServeOperator
from airflow_provider_ray.retry_policy import ray_retry_policy
from airflow_provider_ray.sensors.job import RayJobSensor

JOB = Path(__file__).resolve().parent.parent / "ray_jobs" / "processing"
PICTURES = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "ray_processing"
CLUSTERS = ["ray_local_1", "ray_local_2", "ray_local_3"]
PER_CLUSTER = {
    # Deferrals need a retry on Airflow 3.3.2, which fails some of them by itself; a retry finds its job again.
    "retries": 3,
    "retry_delay": timedelta(seconds=5),
    "retry_policy": ray_retry_policy(delay=5),
    # What the UI calls a mapped task instead of its number.
    "map_index_template": "{{ task.conn_id }}",
}
HOUR = 3600
LEGEND_LIMIT = 60
STATISTICS = ("seed", "name", "priority", "length")


def params() -> dict[str, Param]:
    """The form of the Dags; defaults are a run of some seconds."""
    # Params without a section are in the part of the form that is open at first.
    shape, serving = "Batches and parallelism", "Serving"
    return {
        "clusters": Param(
            CLUSTERS,
            type="array",
            minItems=1,
            uniqueItems=True,
            items={"type": "string"},
            examples=CLUSTERS,
            title="Clusters",
            description="Connections of type ray; each gets an equal share of the work.",
        ),
        "amount": _count(1000, "Amount", "Tuples to process, all clusters together."),
        "offset": _count(0, "Offset", "Number of the first tuple.", minimum=0),
        "lengths": Param(
            [2, 3, 4, 5, 6, 7],
            type="array",
            minItems=1,
            items={"type": "integer", "minimum": 1},
            title="Lengths",
            description="Name lengths to draw from.",
        ),
        "extensions": Param(
            ["txt", "py", "md", "ipynb", "yaml", "sh"],
            type="array",
            minItems=1,
            items={"type": "string"},
            title="Extensions",
            description="Name extensions to draw from, one per line.",
        ),
        "priority": Param(
            {"txt": 1, "py": 2, "md": 3, "ipynb": 4, "yaml": 5, "sh": 6},
            type="object",
            title="Priority",
            description="A number for each extension; tuples are sorted by it.",
        ),
        "workers": _count(2, "Workers", "Preprocess tasks per cluster.", shape),
        "actors": _count(2, "Actors", "Provider actors per cluster.", shape),
        "tuple_batch": _count(5, "Tuple batch", "Tuples per mean and variance.", shape),
        "stats_batch": _count(5, "Stats batch", "Means and variances per summary.", shape),
        "serve_port": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=65535,
            title="Serve port",
            description="Port of Serve on the clusters; empty for the port of each connection's Serve address.",
            section=serving,
        ),
        "linger_seconds": _count(120, "Linger (s)", "Longest time that a job serves its output.", serving, minimum=0),
    }


@task
def plan(params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Divide the amount over the clusters: one range of tuples each, together exactly all of them."""
    from airflow_provider_ray.hooks.ray import RayHook

    if params is None:
        raise ValueError("plan needs the params of its run")
    clusters = params["clusters"]
    if params["amount"] < (needed := len(clusters) * params["workers"]):
        raise ValueError(f"amount: got {params['amount']}; expected at least one tuple per worker, {needed}")
    shares = []
    offset = params["offset"]
    for index, conn_id in enumerate(clusters):
        amount = params["amount"] // len(clusters) + (index < params["amount"] % len(clusters))
        # Its own name in every run, so that no run can meet the application of another.
        application = f"processing-{uuid4().hex[:12]}"
        port = params["serve_port"] or RayHook(conn_id).get_config().serve_port
        shares.append(
            {
                "conn_id": conn_id,
                "application": application,
                "parameters": job_parameters(params, offset, amount, application, port),
            }
        )
        offset += amount
    return shares


def job_parameters(params: dict[str, Any], offset: int, amount: int, application: str, port: int) -> dict[str, Any]:
    """The argument of ``parallel_processing.py`` for one range of tuples."""
    return {
        "process-parameters": {"worker-number": params["workers"], "actor-number": params["actors"]},
        "storage-parameters": {},
        "data-parameters": {
            "amount": amount,
            "offset": offset,
            "lengths": params["lengths"],
            "extensions": params["extensions"],
            "priority": params["priority"],
            "tuple-batch": params["tuple_batch"],
            "stats-batch": params["stats_batch"],
        },
        "serve-parameters": {
            "application": application,
            "route-prefix": f"/{application}",
            "port": port,
            "linger-seconds": params["linger_seconds"],
        },
    }


@task_group(default_args=PER_CLUSTER)
def on_cluster(conn_id: str, application: str, parameters: dict[str, Any]) -> Any:
    """One cluster: run the job, take its answer, let it go; returns the answer and the job's end.

    ``release`` and ``wait`` are teardowns of ``submit``: they follow every submitted job, so that none is left behind
    when ``collect`` fails or somebody fails the run.
    """
    submit = RaySubmitJobOperator(
        task_id="submit",
        conn_id=conn_id,
        entrypoint="python parallel_processing.py",
        parameters=parameters,
        runtime_env={"working_dir": str(JOB)},
        wait_for_completion=False,
    )
    output: Any = submit.output
    job = output["submission_id"]
    call = partial(RayServeOperator, conn_id=conn_id, application=application, submission_id=job)
    # Answers go through XCom: some MB are fine, more wants an XCom backend on object storage.
    collect = call(
        task_id="collect",
        path="/output",
        max_answer_bytes=4 * 1024 * 1024,
        deferrable=True,
        poll_interval=2,
        timeout=HOUR,
    )
    release = call(task_id="release", path="/release", method="POST", timeout=60, retries=0)
    wait = RayJobSensor(
        task_id="wait",
        conn_id=conn_id,
        submission_id=job,
        deferrable=True,
        fetch_logs=True,
        poke_interval=5,
        timeout=HOUR,
    )
    submit >> collect >> release >> wait
    release.as_teardown(setups=submit)
    wait.as_teardown(setups=submit)
    return collect.output, wait.output


@task(multiple_outputs=False)
def merge(shares: Any, answers: Any, jobs: Any) -> dict[str, dict[str, Any]]:
    """What each cluster answered, by connection id."""
    return {
        share["conn_id"]: {
            "submission_id": job["submission_id"],
            "status": job["status"],
            "output": answer["output"],
        }
        for share, answer, job in zip(shares, answers, jobs, strict=True)
    }


@task
def draw(merged: dict[str, dict[str, Any]], run_id: str | None = None) -> str:
    """Draw mean against variance of each statistic, one colour per summary, and return the picture's path."""
    from matplotlib.figure import Figure

    summaries = {
        f"{conn_id} {summary['id']}": summary for conn_id, result in merged.items() for summary in result["output"]
    }
    figure = Figure(figsize=(16, 10), layout="constrained")
    figure.suptitle(f"Mean and variance of the batches of {run_id}")
    for axes, statistic in zip(figure.subplots(2, 2).flat, STATISTICS, strict=True):
        dots = axes.scatter(
            [mean for summary in summaries.values() for mean in summary[statistic]["mean"]],
            [variance for summary in summaries.values() for variance in summary[statistic]["variance"]],
            c=[index for index, summary in enumerate(summaries.values()) for _ in summary["batches"]],
            cmap="turbo",
            alpha=0.7,
        )
        axes.set(title=statistic, xlabel="mean", ylabel="variance")
        axes.grid(visible=True)
    if len(summaries) <= LEGEND_LIMIT:
        colours, _ = dots.legend_elements(num=None)
        figure.legend(colours, summaries, loc="outside right center", title="cluster and summary id")
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture = PICTURES / f"{_slug(run_id or 'run')}.png"
    figure.savefig(picture)
    return str(picture)


def fan_out() -> XComArg:
    """All tasks of the pipeline; returns the merged answers."""
    shares = plan()
    answers, jobs = cast("tuple[XComArg, XComArg]", on_cluster.expand_kwargs(shares))
    merged = merge(shares, answers, jobs)
    draw(cast("Any", merged))
    return merged


def _count(default: int, title: str, description: str, section: str | None = None, minimum: int = 1) -> Param:
    return Param(default, type="integer", minimum=minimum, title=title, description=description, section=section)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:80].lower()
