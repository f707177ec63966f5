from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
from types import MappingProxyType
from typing import Any

import pytest

from airflow_provider_ray.client.api.job_spec import ENTRYPOINT_LIMIT_BYTES, REQUEST_LIMIT_BYTES, JobSpec, command
from airflow_provider_ray.client.errors import RayConfigError

AWKWARD = [
    'it\'s "quoted"',
    "$(touch /tmp/never) `id` $HOME ${x}",
    "two\nlines\tand a tab\r\n",
    "Grüße, 你好, \U0001f600, \u2028",
    "back\\slash \\n",
    "!! * ? [a] ~ # ; & | < >",
    "\ud800 half a pair",
    "",
]


def run_by_shell(line: str) -> Any:
    """What Ray does with an entrypoint; the script prints its arguments as JSON."""
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True, env={"LC_ALL": "C"})
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def printer(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    script = tmp_path_factory.mktemp("with space") / "print arguments.py"
    script.write_text("import json, sys\nprint(json.dumps([json.loads(sys.argv[1])] + sys.argv[2:]))\n")
    return [sys.executable, str(script)]


@pytest.mark.parametrize("text", AWKWARD)
def test_parameters_arrive_unchanged(printer: list[str], text: str) -> None:
    parameters = {"text": text, "nested": [{"a b": [text, 1, 0.5, None, True]}]}
    assert run_by_shell(command(printer, parameters)) == [parameters]
    assert run_by_shell(command(shlex.join(printer), parameters)) == [parameters]


def test_arguments_arrive_unchanged(printer: list[str]) -> None:
    arguments = [text for text in AWKWARD if text.isascii()]
    assert run_by_shell(command([*printer, "1", *arguments])) == [1, *arguments]


def test_line_breaks_around_an_entrypoint_do_not_cut_the_parameters_off(printer: list[str]) -> None:
    assert run_by_shell(command(f"\n  {shlex.join(printer)}  \n\n", {"a": 1})) == [{"a": 1}]


@pytest.mark.parametrize("falsy", [0, False, "", [], {}])
def test_falsy_parameters_are_parameters(printer: list[str], falsy: Any) -> None:
    assert run_by_shell(command(printer, falsy)) == [falsy]


def test_an_entrypoint_without_parameters_stays_as_it_is() -> None:
    assert command("python main.py && echo $HOME\n") == "python main.py && echo $HOME\n"


@pytest.mark.parametrize("entrypoint", ["", "  \n", [], (), b"", b"python", None, 5, ["python", 0.5], {"a": "b"}])
@pytest.mark.parametrize("parameters", [None, {"a": 1}])
def test_entrypoints_that_are_none(entrypoint: Any, parameters: Any) -> None:
    with pytest.raises(RayConfigError, match=r"^entrypoint(\[1\])?: got .*; expected "):
        command(entrypoint, parameters)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": {1, 2}}, "set"),
        ({"a": object()}, "object"),
        ({1: "a"}, "key 1 is a int"),
        ({"a": [{None: 1}]}, "key None"),
        ({"a": math.nan}, "Out of range float"),
        ([math.inf], "Out of range float"),
        (b"bytes", "bytes"),
    ],
)
def test_parameters_that_are_not_json(value: Any, reason: str) -> None:
    with pytest.raises(RayConfigError, match=r"^parameters: got a value that is not JSON") as caught:
        command("python main.py", value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("submission_id", ["a", "0", "a_b-c.d", "x" * 200, "airflow-Dag.task.1"])
def test_submission_ids(submission_id: str) -> None:
    assert JobSpec(entrypoint="true", submission_id=submission_id).to_json()["submission_id"] == submission_id


@pytest.mark.parametrize(
    "submission_id",
    ["", "a/b", "..", ".a", "-a", "_a", "a b", "a\n", "é", "١", "x" * 201, "a%2Fb", "a?b", "a#b", None, 5, "{{ x }}"],
)
def test_submission_ids_that_ray_cannot_store(submission_id: Any) -> None:
    with pytest.raises(RayConfigError, match=r"^submission_id: got .*; expected 1 to 200 of the characters A-Z"):
        JobSpec(entrypoint="true", submission_id=submission_id)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"entrypoint": ""}, "entrypoint"),
        ({"entrypoint": None}, "entrypoint"),
        ({"entrypoint": "a\0b"}, "entrypoint"),
        ({"entrypoint": "echo \ud800"}, "entrypoint"),
        ({"entrypoint": "x" * (ENTRYPOINT_LIMIT_BYTES + 1)}, "entrypoint"),
        ({"entrypoint": "é" * (ENTRYPOINT_LIMIT_BYTES // 2 + 1)}, "entrypoint"),
        ({"metadata": {"a": 1.5}}, "metadata['a']"),
        ({"metadata": {1: "a"}}, "metadata"),
        ({"metadata": ["a"]}, "metadata"),
        ({"metadata": {"a": "\udcff"}}, "metadata['a']"),
        ({"runtime_env": "env.yaml"}, "runtime_env"),
        ({"runtime_env": {"env_vars": {"A": 0.1}}}, "runtime_env['env_vars']['A']"),
        ({"runtime_env": {"env_vars": ["A=1"]}}, "runtime_env['env_vars']"),
        ({"runtime_env": {"pip": {"packages": {"x"}}}}, "runtime_env"),
        ({"entrypoint_label_selector": {"zone": True}}, "entrypoint_label_selector['zone']"),
        ({"entrypoint_label_selector": "zone=a"}, "entrypoint_label_selector"),
        ({"entrypoint_num_cpus": math.nan}, "entrypoint_num_cpus"),
        ({"entrypoint_num_cpus": "two"}, "entrypoint_num_cpus"),
        ({"entrypoint_num_gpus": -1}, "entrypoint_num_gpus"),
        ({"entrypoint_memory": 1.5}, "entrypoint_memory"),
        ({"entrypoint_memory": True}, "entrypoint_memory"),
        ({"entrypoint_resources": {"TPU": "one"}}, "entrypoint_resources['TPU']"),
        ({"entrypoint_resources": {"TPU": -1}}, "entrypoint_resources['TPU']"),
        ({"entrypoint_resources": 3}, "entrypoint_resources"),
    ],
)
def test_jobs_that_cannot_work(given: dict[str, Any], field: str) -> None:
    with pytest.raises(RayConfigError, match=r"^.*: got .*; expected ") as caught:
        JobSpec.given(**{"entrypoint": "true", "submission_id": "j1", **given})
    assert caught.value.field == field
    assert len(str(caught.value)) < 500


def test_env_vars_are_in_no_repr_and_no_error() -> None:
    env_vars = {"KEY": "s3cret", "TRUTH": True}
    with pytest.raises(RayConfigError) as caught:
        JobSpec.given(entrypoint="true", submission_id="j1", runtime_env={"env_vars": env_vars})
    assert "['TRUTH']: got a value of type bool" in str(caught.value)
    spec = JobSpec(entrypoint="true", submission_id="j1", runtime_env={"env_vars": {"KEY": "s3cret"}})
    assert "s3cret" not in repr(spec) + str(caught.value)


def test_only_what_is_given_is_sent() -> None:
    assert JobSpec(entrypoint="true", submission_id="j1").to_json() == {"entrypoint": "true", "submission_id": "j1"}
    spec = JobSpec(
        entrypoint="true",
        submission_id="j1",
        runtime_env=MappingProxyType({"env_vars": {"A": "b"}}),
        metadata=MappingProxyType({"dag": "d"}),
        entrypoint_num_cpus=0,
        entrypoint_num_gpus=0.5,
        entrypoint_memory=10**9,
        entrypoint_resources={"TPU": 1},
        entrypoint_label_selector={"zone": "a"},
    )
    assert json.loads(json.dumps(spec.to_json())) == {
        "entrypoint": "true",
        "submission_id": "j1",
        "runtime_env": {"env_vars": {"A": "b"}},
        "metadata": {"dag": "d"},
        "entrypoint_num_cpus": 0,
        "entrypoint_num_gpus": 0.5,
        "entrypoint_memory": 10**9,
        "entrypoint_resources": {"TPU": 1},
        "entrypoint_label_selector": {"zone": "a"},
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metadata", {"note": "x" * 1_060_000}),
        ("metadata", {"note": "é" * 180_000}),
        ("runtime_env", {"env_vars": {f"V{number}": "x" * 100_000 for number in range(11)}}),
        ("runtime_env", {"config": {"a": ["x"] * 300_000}}),
    ],
)
def test_a_job_that_rays_agent_would_not_take_is_refused_with_its_size(field: str, value: Any) -> None:
    with pytest.raises(RayConfigError, match=rf"{field}: got \d+ of the \d+ bytes .* at most 1048064"):
        JobSpec(entrypoint="true", submission_id="j1", **{field: value})


def test_a_job_as_large_as_rays_agent_takes_is_accepted() -> None:
    spec = JobSpec(entrypoint="true", submission_id="j1", metadata={"note": "x" * (REQUEST_LIMIT_BYTES - 100)})
    size = len(json.dumps(spec.to_json()))
    assert REQUEST_LIMIT_BYTES - 200 < size <= REQUEST_LIMIT_BYTES
    with pytest.raises(RayConfigError, match="at most"):
        JobSpec(entrypoint="true", submission_id="j1", metadata={"note": "x" * REQUEST_LIMIT_BYTES})
