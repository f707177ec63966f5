"""The processing job on several clusters: what the Dags in this folder share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import Param, XComArg
from processing_pictures import DrawSummaries

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.fan_out import Shard, ray_fan_out

JOB = Path(__file__).resolve().parent.parent / "ray_jobs" / "processing"
CLUSTERS = ("ray_local_1", "ray_local_2", "ray_local_3")
HOUR = 3600
# Answers pass through XCom: a few MB are fine; larger answers need an XCom backend on object storage.
ANSWER_BYTES = 4 * 1024 * 1024
# What the answer of the job has at most for a batch and for a summary, as JSON.
BATCH_BYTES, SUMMARY_BYTES = 200, 300
# Limits of the job (ray_jobs/processing/functions/parameters.py).
MAX_LENGTH, MAX_AMOUNT, MAX_SEED, MAX_PRIORITY = 255, 2**32, 2**53, 2**31


def params() -> dict[str, Param]:
    """The trigger form of the Dags. A run with the defaults takes a few seconds."""
    # Params without a section are in the part of the form that is open initially.
    dividing, shape, serving = "Dividing", "Batches and parallelism", "Serving"
    return {
        "clusters": Param(
            ", ".join(CLUSTERS),
            # A list as well, for runs that are not triggered with the form.
            type=["string", "array"],
            minLength=1,
            minItems=1,
            uniqueItems=True,
            items={"type": "string"},
            examples=[", ".join(CLUSTERS), *CLUSTERS],
            title="Clusters",
            description="Ids of connections of type ray, separated by commas, or a label selector such as"
            " site=hpc,gpu=true. The command airflow ray clusters lists them.",
        ),
        "amount": _count(1000, "Amount", "Number of tuples to process, across all clusters.", maximum=MAX_AMOUNT),
        "offset": _count(0, "Offset", "Index of the first tuple.", minimum=0, maximum=MAX_SEED - MAX_AMOUNT),
        "lengths": Param(
            [2, 3, 4, 5, 6, 7],
            type="array",
            minItems=1,
            items={"type": "integer", "minimum": 1, "maximum": MAX_LENGTH},
            title="Lengths",
            description=f"Lengths of file names to choose from, up to {MAX_LENGTH}.",
        ),
        "extensions": Param(
            ["txt", "py", "md", "ipynb", "yaml", "sh"],
            type="array",
            minItems=1,
            items={"type": "string", "pattern": "^[ -~]+$"},
            title="Extensions",
            description="File extensions to choose from, one per line.",
        ),
        "priority": Param(
            {"txt": 1, "py": 2, "md": 3, "ipynb": 4, "yaml": 5, "sh": 6},
            type="object",
            additionalProperties={"type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY},
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
            enum=["all", "any", *range(1, 21)],
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
    """The argument of ``parallel_processing.py`` for the range of tuples of one cluster.

    :raises RayConfigError: when the answer would be larger than ``collect`` accepts. This is called by ``plan``.
    """
    batches = shard.amount // params["tuple_batch"] + params["workers"]
    summaries = batches // params["stats_batch"] + params["workers"]
    if (size := batches * BATCH_BYTES + summaries * SUMMARY_BYTES) > ANSWER_BYTES:
        got = (
            f"{params['tuple_batch']} and {params['stats_batch']}, an answer of up to {size} bytes from {shard.conn_id}"
        )
        expected = f"larger batches for {shard.amount} tuples, as an answer may have {ANSWER_BYTES} bytes"
        raise RayConfigError("tuple_batch and stats_batch", got, expected)
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
        job={"entrypoint": "python parallel_processing.py", "runtime_env": {"working_dir": JOB}},
        parameters=job_parameters,
        collect={"path": "/output", "max_answer_bytes": ANSWER_BYTES, "timeout": HOUR},
        release={"path": "/release"},
        **options,
    )
    DrawSummaries(task_id="draw", merged=merged)
    return merged


def _count(
    default: int,
    title: str,
    description: str,
    section: str | None = None,
    *,
    minimum: int = 1,
    maximum: int | None = None,
) -> Param:
    limits: dict[str, Any] = {"minimum": minimum} if maximum is None else {"minimum": minimum, "maximum": maximum}
    return Param(default, type="integer", title=title, description=description, section=section, **limits)
