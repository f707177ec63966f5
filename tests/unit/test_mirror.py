"""``tests/unit`` mirrors the package: the tests of a module are where the module is."""

from __future__ import annotations

from pathlib import Path

import pytest

UNIT = Path(__file__).parent
ROOT = UNIT.parents[1]
TEST_MODULES = sorted(path.relative_to(UNIT) for path in UNIT.rglob("test_*.py"))
# Tests of no single module, and tests of one module that are too many for one file.
EXCEPTIONS = {
    "test_docs.py",
    "test_mirror.py",
    "test_wheel.py",
    "test_fuzz.py",
    "client/test_imports.py",
    "client/api/test_tls.py",  # http
    "client/jobs/test_upload.py",  # packaging
    "fan_out/test_steps.py",  # task_group
    "operators/test_failing_over.py",  # job
    "operators/test_histories.py",  # job
    "operators/test_limit.py",  # job
    "operators/test_rotation.py",  # job, and all else that waits
    "operators/test_searching.py",  # job
    "ray_jobs/test_processing_pipeline.py",  # the Dags that submit the job
}


def candidates(test_module: Path) -> list[Path]:
    """Where its module may be: ``<path>/<module>.py``; ``<folder>/test_<folder>.py`` tests the folder itself."""
    of_jobs = test_module.parts[0] == "ray_jobs"
    folder = ROOT / ("ray_jobs/processing" if of_jobs else "airflow_provider_ray")
    folder = folder.joinpath(*test_module.parent.parts[of_jobs:])
    name = test_module.stem.removeprefix("test_")
    return [folder / f"{name}.py", *([folder / "__init__.py"] if name == folder.name else [])]


@pytest.mark.parametrize("test_module", TEST_MODULES, ids=str)
def test_a_test_module_is_where_its_module_is(test_module: Path) -> None:
    possible = candidates(test_module)
    there = [str(path.relative_to(ROOT)) for path in possible if path.exists()]
    if str(test_module) in EXCEPTIONS:
        assert not there, f"{test_module} is no exception: it tests {there[0]}"
    else:
        expected = " or ".join(str(path.relative_to(ROOT)) for path in possible)
        assert there, f"tests/unit/{test_module} has no module; expected {expected}"


def test_every_exception_is_there() -> None:
    assert {str(path) for path in TEST_MODULES} >= EXCEPTIONS
