from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.errors import (
    RayAuthError,
    RayClusterUnavailable,
    RayConfigError,
    RayRequestRefused,
)
from airflow_provider_ray.client.jobs.submission import NONCE_KEY, find, submit
from tests.fake_dashboard import FakeDashboard

pytestmark = pytest.mark.anyio

SPEC = JobSpec(entrypoint="python main.py", submission_id="j1", metadata={"dag": "d", "try": "1"})


def posts(fake: FakeDashboard) -> int:
    return len(fake.asked("POST", "/api/jobs/"))


async def test_a_job_is_submitted_with_its_package(client: RayClient, fake: FakeDashboard, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    spec = replace(SPEC, runtime_env={"working_dir": str(tmp_path), "env_vars": {"A": "b"}})
    await submit(client, spec)
    (uri,) = fake.packages
    body = fake.jobs["j1"].body
    assert body["metadata"].pop(NONCE_KEY)
    assert body == {**spec.to_json(), "runtime_env": {"working_dir": uri, "env_vars": {"A": "b"}}}
    assert spec.runtime_env["working_dir"] == str(tmp_path)


async def test_a_job_with_our_nonce_is_adopted(client: RayClient, fake: FakeDashboard) -> None:
    ours = replace(SPEC, metadata={NONCE_KEY: "n"})
    await submit(client, ours)
    await submit(client, ours)
    assert list(fake.jobs) == ["j1"]


async def test_an_equal_job_without_a_nonce_is_not_taken_for_ours(client: RayClient, fake: FakeDashboard) -> None:
    await submit(client, SPEC)
    with pytest.raises(RayConfigError, match=r"'j1', which another job"):
        await submit(client, replace(SPEC, runtime_env={"env_vars": {"DAY": "2"}}))


@pytest.mark.parametrize("other", [{"entrypoint": "python other.py"}, {"metadata": {"dag": "e"}}, {"metadata": {}}])
async def test_another_job_of_this_name_is_refused(client: RayClient, fake: FakeDashboard, other: Any) -> None:
    await submit(client, replace(SPEC, **other))
    with pytest.raises(RayConfigError, match=r"^submission_id: got 'j1', which another job"):
        await submit(client, SPEC)
    assert len(fake.jobs) == 1


@pytest.mark.parametrize("fault", [500, 502, 503, 408, "close"])
@pytest.mark.parametrize("handled", [True, False])
async def test_a_job_is_submitted_once_whatever_happens_to_the_answer(
    client: RayClient, fake: FakeDashboard, fault: Any, handled: bool
) -> None:
    fake.fail(fault, method="POST", handled=handled)
    await submit(client, SPEC)
    assert list(fake.jobs) == ["j1"]
    assert posts(fake) == (1 if handled else 2)


@pytest.mark.parametrize("handled", [True, False])
async def test_an_answer_that_never_comes(client: RayClient, fake: FakeDashboard, handled: bool) -> None:
    fake.fail("hang", method="POST", handled=handled)
    await submit(client, SPEC)
    assert list(fake.jobs) == ["j1"]


@pytest.mark.parametrize("text", ["<html>ok</html>", '{"deprecated": true}', ""])
async def test_an_answer_that_makes_no_sense_loses_no_job(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    fake.fail(200, method="POST", text=text, handled=True)
    await submit(client, SPEC)
    assert list(fake.jobs) == ["j1"]
    fake.fail(200, method="POST", text=text)
    fake.fail(404, method="POST", text="no backend")
    await submit(client, replace(SPEC, submission_id="j2"))
    assert list(fake.jobs) == ["j1", "j2"]
    monkeypatch.setattr(pacing, "FAULT_BUDGET_SECONDS", 0.5)
    fake.fail(404, method="POST", text="no backend", times=9)
    with pytest.raises(RayClusterUnavailable, match="404: no backend"):
        await submit(client, replace(SPEC, submission_id="j3"))


async def test_faults_on_every_step(client: RayClient, fake: FakeDashboard, tmp_path: Path) -> None:
    for path in ("/api/version", "/api/packages/", "/api/jobs/"):
        fake.fail(503, path=path)
    fake.fail("close", method="POST", handled=True)
    fake.fail(503, method="GET", path="/api/jobs/j1")
    await submit(client, replace(SPEC, runtime_env={"working_dir": str(tmp_path)}))
    assert list(fake.jobs) == ["j1"]


async def test_a_cluster_that_stays_away(
    client: RayClient, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "FAULT_BUDGET_SECONDS", 1.0)
    text = "No available agent to submit job, please try again later."
    fake.fail(500, method="POST", times=99, text=text)
    with pytest.raises(RayClusterUnavailable, match=text):
        await submit(client, SPEC)
    assert fake.jobs == {}
    assert posts(fake) > 1


async def test_refusals_are_final(client: RayClient, fake: FakeDashboard) -> None:
    fake.fail(400, method="POST", text="Traceback:\nTypeError: no")
    with pytest.raises(RayRequestRefused, match=r"400: TypeError: no"):
        await submit(client, SPEC)
    fake.fail(302, headers={"Location": "https://login.example"})
    with pytest.raises(RayRequestRefused, match=r"login\.example"):
        await submit(client, SPEC)
    fake.token = "t"
    with pytest.raises(RayAuthError, match=r"401"):
        await submit(client, SPEC)
    assert posts(fake) == 1


@pytest.mark.parametrize("wrapped", [400, 429])
async def test_a_refusal_that_the_head_wraps(client: RayClient, fake: FakeDashboard, wrapped: int) -> None:
    text = f"Traceback:\nRuntimeError: Request failed with status code {wrapped}: Traceback:\nValueError: no\n.\n"
    fake.fail(500, method="POST", text=text)
    if wrapped == 429:
        await submit(client, SPEC)
        return
    with pytest.raises(RayRequestRefused, match=r"500: ValueError: no$"):
        await submit(client, SPEC)
    assert fake.jobs == {}


async def test_labels_wait_for_no_old_server(client: RayClient, fake: FakeDashboard, tmp_path: Path) -> None:
    spec = replace(SPEC, entrypoint_label_selector={"zone": "a"}, runtime_env={"working_dir": str(tmp_path)})
    fake.ray_version = "2.53.0"
    with pytest.raises(RayConfigError, match=r"^entrypoint_label_selector: .*2\.54 or newer.*2\.53\.0"):
        await submit(client, spec)
    assert [request.path for request in fake.requests] == ["/api/version"]
    fake.ray_version = "2.54.0"
    await submit(client, spec)
    assert fake.jobs["j1"].body["entrypoint_label_selector"] == {"zone": "a"}


async def test_finding_a_job(client: RayClient, fake: FakeDashboard) -> None:
    assert await find(client, "j1", "n1") is None
    spec = replace(SPEC, metadata={NONCE_KEY: "n1"})
    await submit(client, spec)
    fake.fail(503, method="GET")
    assert await find(client, "j1", "another") is None
    found = await find(client, "j1", "n1")
    assert found is not None
    assert (found.submission_id, found.entrypoint, found.metadata) == ("j1", spec.entrypoint, spec.metadata)
