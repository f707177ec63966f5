"""What of a runtime environment reaches a cluster, and what is refused."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ray.client.api import job_spec
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.runtime_env import KNOWN_KEYS, read_runtime_env, with_contents
from airflow_provider_ray.client.errors import RayConfigError


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the Airflow worker."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.txt").write_text("\ufeffsix==1.17\n\n# why\nnumpy>=2 ; python_version > '3.10'\n")
    (tmp_path / "environment.yml").write_text("dependencies:\n  - python=3.12\n  - pip:\n      - six\n")
    return tmp_path


def prepared(runtime_env: Any) -> dict[str, Any]:
    return with_contents(read_runtime_env(runtime_env))


LINES = ["six==1.17", "# why", "numpy>=2 ; python_version > '3.10'"]
CONDA = {"dependencies": ["python=3.12", {"pip": ["six"]}]}


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"pip": "requirements.txt"}, {"pip": LINES}),
        ({"pip": Path("requirements.txt")}, {"pip": LINES}),
        ({"uv": "requirements.txt"}, {"uv": LINES}),
        ({"pip": {"packages": "requirements.txt", "pip_check": True}}, {"pip": {"packages": LINES, "pip_check": True}}),
        ({"uv": {"packages": Path("requirements.txt")}}, {"uv": {"packages": LINES}}),
        ({"conda": "environment.yml"}, {"conda": CONDA}),
        ({"conda": Path("environment.yml")}, {"conda": CONDA}),
        ({"conda": "an-environment-of-the-cluster"}, {"conda": "an-environment-of-the-cluster"}),
        ({"conda": CONDA}, {"conda": CONDA}),
        ({"pip": ("six",)}, {"pip": ["six"]}),
        ({"pip": None, "working_dir": Path("job")}, {"pip": None, "working_dir": "job"}),
        ({"excludes": ("a", Path("b"))}, {"excludes": ["a", "b"]}),
        ({"env_vars": {"N": 1, "P": Path("/x")}}, {"env_vars": {"N": "1", "P": "/x"}}),
        ({"py_modules": ["s3://b/m.zip"]}, {"py_modules": ["s3://b/m.zip"]}),
        ({"pip": ["-r ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/requirements.txt"]}, None),
        ({"pip": ["-r /opt/requirements.txt", "/opt/a.whl", "https://host/a.whl", "git+https://host/a.git"]}, None),
        ({"pip": ["a @ https://host/a.whl", "--index-url https://host/simple"]}, None),
        ({"pip": ["-e git+ssh://host/a", "ray[serve]"]}, None),
    ],
    ids=str,
)  # fmt: skip
def test_what_arrives(given: dict[str, Any], sent: dict[str, Any] | None) -> None:
    assert prepared(given) == (given if sent is None else sent)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("given", "field", "got"),
    [
        ({"pip": "missing.txt"}, "runtime_env['pip']", "No such file"),
        ({"uv": {"packages": "missing.txt"}}, "runtime_env['uv']['packages']", "No such file"),
        ({"conda": "missing.yaml"}, "runtime_env['conda']", "No such file"),
        ({"conda": "requirements.yml"}, "runtime_env['conda']", "which holds a str"),
        ({"conda": "broken.yml"}, "runtime_env['conda']", "'broken.yml', which is not YAML (line 1)"),
        ({"pip": ["six", "-r more.txt"]}, "runtime_env['pip']", "'-r more.txt'"),
        ({"pip": ["-rmore.txt"]}, "runtime_env['pip']", "'-rmore.txt'"),
        ({"pip": ["--constraint=c.txt"]}, "runtime_env['pip']", "'--constraint=c.txt'"),
        ({"pip": {"packages": ["-e ."]}}, "runtime_env['pip']", "'-e .'"),
        ({"uv": ["./lib"]}, "runtime_env['uv']", "'./lib'"),
        ({"uv": ["dist/a-1.whl"]}, "runtime_env['uv']", "'dist/a-1.whl'"),
        ({"pip": "nested.txt"}, "runtime_env['pip']", "'-c constraints.txt'"),
        ({"conda": "nested.yml"}, "runtime_env['conda']", "'-r requirements.txt'"),
        ({"conda": {"dependencies": [{"pip": ["../lib"]}]}}, "runtime_env['conda']", "'../lib'"),
        ({"py_modules": ["./lib"]}, "runtime_env['py_modules']", "local ['./lib']"),
        ({"py_modules": [Path("lib")]}, "runtime_env['py_modules']", "local ['lib']"),
        ({"py_modules": "lib"}, "runtime_env['py_modules']", "'lib'"),
        ({"java_jars": ["a.jar"]}, "runtime_env['java_jars']", "local ['a.jar']"),
        ({"pip": ["a"], "conda": "b"}, "runtime_env", "pip and conda"),
        ({"worker_process_setup_hook": print}, "runtime_env", "builtin_function_or_method is not JSON"),
        ({"env_vars": {"A=B": "c"}}, "runtime_env['env_vars']['A=B']", "this name"),
        ({"env_vars": {"A\0": "c"}}, "runtime_env['env_vars']['A\\x00']", "this name"),
        ({"env_vars": {"": "c"}}, "runtime_env['env_vars']['']", "this name"),
        ({"env_vars": {"A": "c\0"}}, "runtime_env['env_vars']['A']", "a NUL character"),
        ({"env_vars": {"A": "é" * 70_000}}, "runtime_env['env_vars']['A']", "140002 bytes"),
        ("env.yml", "runtime_env", "a str"),
    ],
    ids=str,
)
def test_what_the_cluster_could_not_use(worker: Path, given: Any, field: str, got: str) -> None:
    (worker / "requirements.yml").write_text("six numpy")
    (worker / "broken.yml").write_text("a: [")
    (worker / "nested.txt").write_text("six\n-c constraints.txt\n")
    (worker / "nested.yml").write_text("dependencies: [{pip: [-r requirements.txt]}]")
    with pytest.raises(RayConfigError) as caught:
        prepared(given)
    assert caught.value.field == field
    assert got in caught.value.got
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "given",
    [
        {"conda": "private.yml"},
        {"pip": ["-e ./lib --index-url https://ci:very-private@pypi.example/simple"]},
        {"pip": ["-r more.txt?token=very-private"]},
        {"pip": "private.txt"},
        {"py_modules": "https://ci:very-private@example.com/a.zip"},
        {"java_jars": ["lib?token=very-private"]},
    ],
    ids=str,
)
def test_an_error_repeats_no_credentials(worker: Path, given: Any) -> None:
    (worker / "private.yml").write_text("channels: [https://ci:very-private@conda.example/t/very-private/main, [\n")
    (worker / "private.txt").write_text("six\n-r more.txt --extra-index-url https://ci:very-private@pypi.example\n")
    with pytest.raises(RayConfigError) as caught:
        prepared(given)
    assert "very-private" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        ({"workingdir": "."}, "that Ray 2.60 does not know, 'workingdir'; did you mean 'working_dir'"),
        ({"xyz": 1}, "runtime_env has a key that Ray 2.60 does not know, 'xyz'"),
        ({"config": {"setup_timeout": 9}}, "runtime_env['config'] has a key that Ray 2.60 does not know"),
        ({"pip": {"packages": ["a"], "pip_chek": True}}, "'pip_chek'; did you mean 'pip_check'?"),
    ],
)  # fmt: skip
def test_unknown_keys_are_named(caplog: pytest.LogCaptureFixture, given: Any, warning: str) -> None:
    assert prepared(given) == given
    (record,) = caplog.records
    assert warning in record.getMessage()


def test_the_known_keys_are_rays() -> None:
    from ray.runtime_env import RuntimeEnv, RuntimeEnvConfig

    assert set(RuntimeEnv.known_fields) | {"nsight", "rocprof_sys"} == set(KNOWN_KEYS["runtime_env"])
    assert set(RuntimeEnvConfig.known_fields) == set(KNOWN_KEYS["config"])


@pytest.mark.parametrize(
    ("given", "largest"),
    [
        ({"runtime_env": {"env_vars": {"A": "a" * 128_000}}}, "128002 of them in runtime_env['env_vars']['A']"),
        ({"runtime_env": {"env_vars": {f"A{i}": "a" * 1000 for i in range(130)}}}, "in runtime_env['env_vars']['A0']"),
        ({"runtime_env": {"pip": ["a" * 130_000]}}, "in runtime_env['pip']"),
        ({"metadata": {"a": "é" * 22_000}}, "132002 of them in metadata['a']"),
    ],
)
def test_what_does_not_fit_into_the_variable_that_ray_makes_of_it(given: dict[str, Any], largest: str) -> None:
    with pytest.raises(RayConfigError, match=r"^runtime_env and metadata: got \d+ bytes as JSON, ") as caught:
        JobSpec.given(entrypoint="true", submission_id="j1", **given)
    assert largest in caught.value.got
    assert f"at most {job_spec.CONFIG_LIMIT_BYTES}" in caught.value.expected


def test_the_largest_that_fits() -> None:
    JobSpec.given(entrypoint="true", submission_id="j1", metadata={"a": "a" * (job_spec.CONFIG_LIMIT_BYTES - 50)})


def test_a_request_over_the_limit_of_ray() -> None:
    with pytest.raises(RayConfigError, match=r"^the job: got \d{7} bytes as JSON; expected at most 1048064"):
        JobSpec.given(
            entrypoint="true", submission_id="j1", entrypoint_resources={"x" * 100 + str(i): 1 for i in range(10_000)}
        )


@pytest.mark.parametrize("name", ["CPU", "GPU", "memory", "object_store_memory"])
def test_rays_own_resources_are_no_custom_ones(name: str) -> None:
    with pytest.raises(RayConfigError, match=rf"^entrypoint_resources: got '{name}'; expected "):
        JobSpec.given(entrypoint="true", submission_id="j1", entrypoint_resources={name: 1})


def test_less_than_ray_can_count() -> None:
    with pytest.raises(RayConfigError, match=r"^entrypoint_num_cpus: got 1e-05; expected 0, or at least 0.0001"):
        JobSpec.given(entrypoint="true", submission_id="j1", entrypoint_num_cpus="0.00001")
