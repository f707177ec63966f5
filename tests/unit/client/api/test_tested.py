"""A word about a Ray that this package was never tested with."""

from __future__ import annotations

import pytest

from airflow_provider_ray.client.api import tested
from airflow_provider_ray.client.api.ray_client import RayClient
from tests.fake_dashboard import FakeDashboard

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("ray_version", "warnings"),
    [("2.49.2", 0), ("2.60.0", 0), ("2.61.0rc1", 1), ("2.48.0", 1), ("3.0.0.dev0", 1), ("nightly" * 99, 1)],
)
async def test_a_release_that_was_never_tested_is_worth_one_warning(
    client: RayClient,
    fake: FakeDashboard,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ray_version: str,
    warnings: int,
) -> None:
    monkeypatch.setattr(tested, "_warned", set())
    fake.ray_version = ray_version
    for _ in range(2):
        await client.cluster.version()
    assert len(caplog.records) == warnings
    assert all(len(record.message) < 200 for record in caplog.records)


def test_a_cluster_that_reports_something_else_each_time_does_not_flood_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tested, "_warned", set())
    for number in range(99):
        tested.warn_if_untested(f"9.{number}", "http://ray")
    assert len(caplog.records) == 10
