"""The trigger form of the Dags of the processing job: it takes what the job takes, and no more."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Param
from airflow.sdk.exceptions import ParamValidationError
from functions import parameters as job
from functions.parameters import parse_parameters

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.fan_out import Shard
from tests.unit.ray_jobs.functions.test_statistics import summaries

sys.path.insert(0, str(Path(__file__).parents[3] / "dags"))

import processing_pipeline as form


def resolved(**given: Any) -> dict[str, Any]:
    """Params of a run, as the form or the API checks them."""
    params: dict[str, Param] = form.params()
    return {name: param.resolve(given[name]) if name in given else param.resolve() for name, param in params.items()}


def shard(amount: int) -> Shard:
    return Shard(conn_id="c", application="fan-out-1", serve_port=8000, share=1.0, amount=amount, offset=0)


def test_the_limits_of_the_form_are_those_of_the_job() -> None:
    for name in ("MAX_LENGTH", "MAX_AMOUNT", "MAX_SEED", "MAX_PRIORITY"):
        assert getattr(form, name) == getattr(job, name)


def test_the_defaults_work() -> None:
    parse_parameters(json.loads(json.dumps(form.job_parameters(shard(1000), resolved()))))


@pytest.mark.parametrize(
    "given",
    [
        {"clusters": "gpu_lab"}, {"clusters": "site=hpc"}, {"clusters": ["a", "b"]}, {"policy": "any"}, {"policy": 2},
        {"weights": {}}, {"weights": None}, {"lengths": [255]}, {"extensions": ["tar.gz", "7z"]},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_form_takes(given: dict[str, Any]) -> None:
    assert resolved(**given).items() >= given.items()


@pytest.mark.parametrize(
    "given",
    [
        {"clusters": ""}, {"clusters": []}, {"policy": "most"}, {"policy": 0}, {"lengths": [256]}, {"lengths": [0]},
        {"extensions": ["é"]}, {"extensions": [""]}, {"priority": {"txt": "high"}}, {"priority": {"txt": 2**31 + 1}},
        {"amount": 2**32 + 1}, {"offset": 2**53}, {"tuple_batch": 0},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_form_refuses(given: dict[str, Any]) -> None:
    with pytest.raises(ParamValidationError):
        resolved(**given)


@pytest.mark.parametrize(
    ("amount", "given"),
    [
        (20_000, {"tuple_batch": 1, "stats_batch": 10**6}),
        (8_000, {"tuple_batch": 1, "stats_batch": 1}),
        (300_000, {"tuple_batch": 17, "stats_batch": 100, "workers": 20}),
    ],
)
def test_an_answer_that_plan_lets_through_fits(amount: int, given: dict[str, Any]) -> None:
    parameters = json.loads(json.dumps(form.job_parameters(shard(amount), resolved(**given))))
    assert len(json.dumps({"output": summaries(parameters)})) <= form.ANSWER_BYTES


@pytest.mark.parametrize(
    ("amount", "given"),
    [(40_000, {"tuple_batch": 1, "stats_batch": 100}), (13_000, {"tuple_batch": 1, "stats_batch": 1})],
)
def test_batches_too_small_for_the_answer_are_refused_by_plan(amount: int, given: dict[str, Any]) -> None:
    with pytest.raises(RayConfigError, match=r"^tuple_batch and stats_batch: got 1 and 1.*; expected larger batches"):
        form.job_parameters(shard(amount), resolved(**given))
