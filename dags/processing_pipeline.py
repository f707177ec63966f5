"""The processing job on several clusters: what the Dags in this folder share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import Param, XComArg
from processing_pictures import DrawSummaries

from airflow_provider_ray.fan_out import Shard, ray_fan_out

JOB = Path(__file__).resolve().parent.parent / "ray_jobs" / "processing"
CLUSTERS = ["ray_local_1", "ray_local_2", "ray_local_3"]
HOUR = 3600


def params() -> dict[str, Param]:
    """The trigger form of the Dags. A run with the defaults takes a few seconds."""
    # Params without a section are in the part of the form that is open initially.
    dividing, shape, serving = "Dividing", "Batches and parallelism", "Serving"
    return {
        "clusters": Param(
            CLUSTERS,
            type="array",
            minItems=1,
            uniqueItems=True,
            items={"type": "string"},
            examples=CLUSTERS,
            title="Clusters",
            description="Ids of connections of type ray.",
        ),
        "amount": _count(1000, "Amount", "Number of tuples to process, across all clusters."),
        "offset": _count(0, "Offset", "Index of the first tuple.", minimum=0),
        "lengths": Param(
            [2, 3, 4, 5, 6, 7],
            type="array",
            minItems=1,
            items={"type": "integer", "minimum": 1},
            title="Lengths",
            description="Lengths of file names to choose from.",
        ),
        "extensions": Param(
            ["txt", "py", "md", "ipynb", "yaml", "sh"],
            type="array",
            minItems=1,
            items={"type": "string"},
            title="Extensions",
            description="File extensions to choose from, one per line.",
        ),
        "priority": Param(
            {"txt": 1, "py": 2, "md": 3, "ipynb": 4, "yaml": 5, "sh": 6},
            type="object",
            title="Priority",
            description="A number for each extension, by which tuples are sorted.",
        ),
        "weights": Param(
            {"CPU": 1},
            type=["null", "object"],
            title="Weights",
            description="How much each resource of a cluster counts when the work is divided, for example"
            ' {"CPU": 0.6, "memory": 0.2, "GPU": 0.2}. Leave empty for equal shares.',
            section=dividing,
        ),
        "policy": Param(
            "all",
            type=["string", "integer"],
            title="Policy",
            description="How many clusters have to succeed: all, any, or a number.",
            section=dividing,
        ),
        "workers": _count(2, "Workers", "Preprocessing tasks per cluster.", shape),
        "actors": _count(2, "Actors", "Provider actors per cluster.", shape),
        "tuple_batch": _count(5, "Tuple batch", "Number of tuples per mean and variance.", shape),
        "stats_batch": _count(5, "Statistics batch", "Number of means and variances per summary.", shape),
        "serve_port": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=65535,
            title="Serve port",
            description="Port of Ray Serve on the clusters. Leave empty to use the port in each connection.",
            section=serving,
        ),
        "linger_seconds": _count(
            120, "Linger (s)", "Maximum time for which a job serves its output.", serving, minimum=0
        ),
    }


def job_parameters(shard: Shard, params: Mapping[str, Any]) -> dict[str, Any]:
    """The argument of ``parallel_processing.py`` for the range of tuples of one cluster."""
    return {
        "process-parameters": {
            # Each worker needs at least one tuple.
            "worker-number": min(params["workers"], shard.amount),
            "actor-number": params["actors"],
        },
        "storage-parameters": {},
        "data-parameters": {
            "amount": shard.amount,
            "offset": shard.offset,
            "lengths": params["lengths"],
            "extensions": params["extensions"],
            "priority": params["priority"],
            "tuple-batch": params["tuple_batch"],
            "stats-batch": params["stats_batch"],
        },
        "serve-parameters": {
            "application": shard.application,
            "route-prefix": f"/{shard.application}",
            "port": params["serve_port"] or shard.serve_port,
            "linger-seconds": params["linger_seconds"],
        },
    }


def fan_out(**options: Any) -> XComArg:
    """Make all tasks of the pipeline, and return the merged answers.

    :param options: further arguments of ``ray_fan_out``.
    """
    merged = ray_fan_out(
        clusters="{{ params.clusters }}",
        amount="{{ params.amount }}",
        offset="{{ params.offset }}",
        weights="{{ params.weights }}",
        capacity="total",
        policy="{{ params.policy }}",
        job={"entrypoint": "python parallel_processing.py", "runtime_env": {"working_dir": str(JOB)}},
        parameters=job_parameters,
        # Answers pass through XCom: a few MB are fine; larger answers need an XCom backend on object storage.
        collect={"path": "/output", "max_answer_bytes": 4 * 1024 * 1024, "timeout": HOUR},
        release={"path": "/release"},
        **options,
    )
    DrawSummaries(task_id="draw", merged=merged)
    return merged


def _count(default: int, title: str, description: str, section: str | None = None, minimum: int = 1) -> Param:
    return Param(default, type="integer", minimum=minimum, title=title, description=description, section=section)
