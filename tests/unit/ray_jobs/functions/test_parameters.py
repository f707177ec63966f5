from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from functions.parameters import ParameterError, parse_parameters, read_parameters

from tests.unit.ray_jobs import naive

SCRIPT = Path(__file__).parents[4] / "ray_jobs" / "processing" / "parallel_processing.py"
MISSING = object()


def changed(path: str, value: object) -> dict[str, Any]:
    """Valid input with one value replaced, added or taken away."""
    parameters = copy.deepcopy(naive.job())
    *parents, key = path.split("/")
    target = parameters
    for parent in parents:
        target = target[parent]
    if value is MISSING:
        del target[key]
    else:
        target[key] = value
    return parameters


BAD = [
    ("process-parameters", MISSING, "parameters.process-parameters is missing"),
    ("data-parameters", [], "data-parameters is []; expected an object"),
    ("data-parameter", {}, "data-parameter is unknown; expected only process-parameters"),
    ("storage-parameters", {"bucket": "b"}, 'storage-parameters is {"bucket": "b"}; expected an empty object'),
    ("process-parameters/worker-number", MISSING, "process-parameters.worker-number is missing"),
    ("process-parameters/worker-number", 0, "process-parameters.worker-number is 0; expected an integer of at least 1"),
    (
        "process-parameters/worker-number",
        54,
        "process-parameters.worker-number is 54; expected at most data-parameters.amount (53)",
    ),
    ("process-parameters/actor-number", True, "process-parameters.actor-number is true; expected an integer"),
    ("process-parameters/actors", 2, "process-parameters.actors is unknown; expected only worker-number, actor-number"),
    ("data-parameters/amount", 0, "data-parameters.amount is 0; expected an integer of at least 1"),
    ("data-parameters/amount", "50", 'data-parameters.amount is "50"; expected an integer'),
    ("data-parameters/amount", 50.0, "data-parameters.amount is 50.0; expected an integer"),
    ("data-parameters/amount", None, "data-parameters.amount is null; expected an integer"),
    ("data-parameters/amount", 2**32 + 1, "data-parameters.amount is 4294967297; expected an integer"),
    ("data-parameters/offset", -1, "data-parameters.offset is -1; expected an integer of at least 0"),
    ("data-parameters/offset", 2**53, "data-parameters.offset is 9007199254740992; expected an integer of at least 0"),
    ("data-parameters/lengths", [], "data-parameters.lengths is []; expected a list with at least one item"),
    ("data-parameters/lengths", [2, 0], "data-parameters.lengths is 0; expected an integer of at least 1, at most 255"),
    ("data-parameters/lengths", 3, "data-parameters.lengths is 3; expected a list"),
    ("data-parameters/extensions", ["txt", ""], 'data-parameters.extensions is ""; expected strings'),
    ("data-parameters/extensions", ["txt", "é"], 'data-parameters.extensions is "\\u00e9"; expected only letters'),
    ("data-parameters/extensions", ["İ"], 'data-parameters.extensions is "\\u0130"; expected only letters'),
    ("data-parameters/extensions", ["t日本"], 'data-parameters.extensions is "t\\u65e5\\u672c"; expected only letters'),
    ("data-parameters/extensions", ["txt", "zip"], 'data-parameters.priority has no "zip"; expected an integer'),
    ("data-parameters/priority", {"txt": 1}, 'data-parameters.priority has no "py"'),
    ("data-parameters/priority/md", "3", 'data-parameters.priority.md is "3"; expected an integer'),
    ("data-parameters/tuple-batch", 0, "data-parameters.tuple-batch is 0; expected an integer of at least 1"),
    ("data-parameters/stats-batch", False, "data-parameters.stats-batch is false; expected an integer of at least 1"),
    ("data-parameters/seed", 1, "data-parameters.seed is unknown; expected only amount, offset, lengths"),
    ("serve-parameters/application", "a b", 'serve-parameters.application is "a b"; expected up to 200 letters'),
    ("serve-parameters/route-prefix", "/", 'serve-parameters.route-prefix is "/"; expected a path such as /processing'),
    (
        "serve-parameters/route-prefix",
        "run",
        'serve-parameters.route-prefix is "run"; expected a path such as /processing',
    ),
    (
        "serve-parameters/route-prefix",
        "/run/",
        'serve-parameters.route-prefix is "/run/"; expected a path such as /processing',
    ),
    ("serve-parameters/route-prefix", "/-/routes", 'serve-parameters.route-prefix is "/-/routes"; expected a path'),
    ("serve-parameters/host", "", 'serve-parameters.host is ""; expected an address'),
    ("serve-parameters/port", 70000, "serve-parameters.port is 70000; expected an integer of at least 1"),
    ("serve-parameters/linger-seconds", -1, "serve-parameters.linger-seconds is -1; expected a number of seconds"),
    ("serve-parameters/linger-seconds", float("nan"), "serve-parameters.linger-seconds is NaN; expected a number"),
    ("serve-parameters/linger", 5, "serve-parameters.linger is unknown; expected only application, route-prefix"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD)
def test_bad_input_is_refused_with_field_value_and_expectation(path: str, value: object, message: str) -> None:
    with pytest.raises(ParameterError) as refusal:
        parse_parameters(changed(path, value))
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "got 0 arguments; expected exactly one"),
        (["{}", "{}"], "got 2 arguments; expected exactly one"),
        (["{'amount': 1}"], "the argument is not JSON"),
        (["[]"], "parameters is []; expected an object"),
    ],
)
def test_the_command_line_is_one_json_object(arguments: list[str], message: str) -> None:
    with pytest.raises(ParameterError) as refusal:
        read_parameters(arguments)
    assert str(refusal.value).startswith(message)


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(ParameterError) as refusal:
        parse_parameters(changed("data-parameters/amount", "9" * 1000))
    assert len(str(refusal.value)) < 200


def test_serve_parameters_have_defaults_of_their_own_for_every_run() -> None:
    parameters = changed("serve-parameters", MISSING)
    first, second = (parse_parameters(parameters).serve for _ in range(2))
    assert first.application != second.application
    assert first.route_prefix == f"/{first.application}"
    assert (first.host, first.port, first.linger_seconds) == (None, 8000, 120)


def test_batches_larger_than_the_data_and_unused_priorities_are_fine() -> None:
    parameters = naive.job(amount=3, tuple_batch=1000, stats_batch=1000, extensions=["md"])
    data = read_parameters([json.dumps(parameters)]).data
    assert (data.tuple_batch, data.extensions) == (1000, ("md",))


def test_the_script_says_what_is_wrong_and_exits_with_2() -> None:
    command = [sys.executable, str(SCRIPT), json.dumps(naive.job(amount=0))]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    expected = "an integer of at least 1, at most 4294967296"
    assert run.stderr == f"Parameter error: data-parameters.amount is 0; expected {expected}\n"
    assert "Running parallel processing" not in run.stdout
