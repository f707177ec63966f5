"""A word about an Airflow that this package was never tested with."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from airflow_provider_ray.compat import versions
from airflow_provider_ray.hooks import options
from airflow_provider_ray.hooks.ray import RayHook
from tests.fake_dashboard import FakeDashboard


def test_the_release_that_is_installed_is_the_one_that_is_tested() -> None:
    assert version("apache-airflow").startswith(f"{versions.TESTED_AIRFLOW}.")
    assert version("apache-airflow-task-sdk").startswith(f"{versions.TESTED_SDK}.")


@pytest.mark.parametrize(("installed", "warnings"), [("1.3.9", 0), ("1.3", 0), ("1.4.0", 1), ("1.30.0", 1)])
def test_another_release_is_worth_one_warning(
    dashboard: FakeDashboard,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    installed: str,
    warnings: int,
) -> None:
    monkeypatch.setattr(versions, "sdk_version", installed)
    monkeypatch.setattr(options, "_is_applied", False)
    for _ in range(2):
        RayHook().get_config()
    assert [installed in record.message for record in caplog.records] == [True] * warnings
