from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayAuthError, RayConfigError, RayRequestRefused
from airflow_provider_ray.client.jobs.packaging import build, upload_working_dir
from tests.fake_dashboard import FakeDashboard

pytestmark = pytest.mark.anyio

UPLOAD = """
import asyncio, sys
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.jobs.packaging import upload_working_dir
from airflow_provider_ray.client.api.ray_client import RayClient

async def main():
    async with RayClient(ClusterConfig(url=sys.argv[1])) as client:
        print((await upload_working_dir(client, {"working_dir": sys.argv[2]}))["working_dir"])

sys.stdin.readline()
asyncio.run(main())
"""


@pytest.fixture
def working_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "main.py").write_text("print('hello')")
    (folder / "data.csv").write_text("1,2")
    return folder


def puts(fake: FakeDashboard) -> int:
    return len(fake.asked("PUT", "/api/packages/"))


async def test_a_directory_becomes_a_package(client: RayClient, fake: FakeDashboard, working_dir: Path) -> None:
    given = {"working_dir": str(working_dir), "excludes": ["*.csv"], "env_vars": {"A": "b"}}
    package = build(working_dir, ["*.csv"])
    before = dict(given)
    assert await upload_working_dir(client, given) == {"working_dir": package.uri, "env_vars": {"A": "b"}}
    assert given == before
    assert fake.packages == {package.uri: package.body}


async def test_an_upload_happens_once_and_is_asked_for_each_time(
    client: RayClient, fake: FakeDashboard, working_dir: Path
) -> None:
    for _ in range(3):
        await upload_working_dir(client, {"working_dir": working_dir})
    assert (puts(fake), len(fake.asked("GET", "/api/packages/"))) == (1, 3)
    fake.packages.clear()
    await upload_working_dir(client, {"working_dir": working_dir})
    assert puts(fake) == 2


@pytest.mark.parametrize("uri", ["s3://bucket/a.zip", "gcs://a.zip", "https://example/a.zip", "local:///opt/app"])
async def test_uris_pass_through(client: RayClient, fake: FakeDashboard, uri: str) -> None:
    env: dict[str, Any] = {"working_dir": uri, "excludes": ["x"]}
    assert await upload_working_dir(client, env) == env
    assert await upload_working_dir(client, {"pip": ["six"]}) == {"pip": ["six"]}
    assert fake.requests == []


@pytest.mark.parametrize("working_dir", ["", " ", 5, ["a"], b"/tmp", False])
async def test_values_that_are_no_path(client: RayClient, fake: FakeDashboard, working_dir: Any) -> None:
    with pytest.raises(RayConfigError, match=r"expected a path or a URI") as caught:
        await upload_working_dir(client, {"working_dir": working_dir})
    assert caught.value.field == "runtime_env['working_dir']"
    assert fake.requests == []


async def test_tasks_of_one_process_upload_once(fake: FakeDashboard, working_dir: Path) -> None:
    async def one() -> None:
        async with RayClient(ClusterConfig(url=fake.url)) as client:
            await upload_working_dir(client, {"working_dir": working_dir})

    await asyncio.gather(*(one() for _ in range(8)))
    assert (puts(fake), len(fake.packages)) == (1, 1)


def test_eight_processes_upload_once(fake: FakeDashboard, working_dir: Path) -> None:
    argv = [sys.executable, "-c", UPLOAD, fake.url, str(working_dir)]
    started = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0] * 8
    assert said == set(fake.packages)
    assert puts(fake) == 1


async def test_clusters_do_not_wait_for_each_other(fake: FakeDashboard, working_dir: Path) -> None:
    with FakeDashboard() as stuck:
        stuck.fail("hang")
        async with (
            RayClient(ClusterConfig(url=stuck.url)) as slow,
            RayClient(ClusterConfig(url=fake.url)) as quick,
        ):
            waiting = asyncio.create_task(upload_working_dir(slow, {"working_dir": working_dir}))
            await asyncio.sleep(0.3)
            await asyncio.wait_for(upload_working_dir(quick, {"working_dir": working_dir}), 5)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting


async def test_the_lock_is_free_again_while_a_fork_lives(
    client: RayClient, fake: FakeDashboard, working_dir: Path
) -> None:
    fake.fail(500, method="PUT")
    uploading = asyncio.create_task(upload_working_dir(client, {"working_dir": working_dir}))
    while not fake.asked("PUT", "/api/packages/"):
        await asyncio.sleep(0.01)
    locks = [number for number in map(int, os.listdir("/proc/self/fd")) if _opened(number).endswith(".lock")]
    assert locks
    child = subprocess.Popen(["sleep", "60"], pass_fds=locks)
    try:
        await uploading
        await asyncio.wait_for(upload_working_dir(client, {"working_dir": working_dir}), 5)
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("kind", ["file", "link"])
async def test_a_lock_is_taken_in_a_directory_of_ones_own_only(
    client: RayClient, working_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder, elsewhere = tmp_path / f"airflow-provider-ray-{os.getuid()}", tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere) if kind == "link" else folder.touch()
    with pytest.raises((RayConfigError, FileExistsError)):
        await upload_working_dir(client, {"working_dir": working_dir})
    assert not list(elsewhere.iterdir())


async def test_a_lock_that_is_a_link_is_not_followed(
    client: RayClient, fake: FakeDashboard, working_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    await upload_working_dir(client, {"working_dir": working_dir})
    (lock,) = (tmp_path / f"airflow-provider-ray-{os.getuid()}").iterdir()
    assert (lock.stat().st_mode & 0o777, lock.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    lock.unlink()
    lock.symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        await upload_working_dir(client, {"working_dir": working_dir})
    assert not (tmp_path / "target").exists()


def _opened(descriptor: int) -> str:
    path = f"/proc/self/fd/{descriptor}"
    return os.readlink(path) if os.path.islink(path) else ""


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_passing_faults_do_not_fail_an_upload(
    client: RayClient, fake: FakeDashboard, working_dir: Path, method: str
) -> None:
    fake.fail(503, method=method, times=2)
    await upload_working_dir(client, {"working_dir": working_dir})
    assert list(fake.packages) == [build(working_dir).uri]


async def test_a_refusal_fails_an_upload_at_once(client: RayClient, fake: FakeDashboard, working_dir: Path) -> None:
    fake.fail(413, method="PUT", times=9, text="Maximum request body size 104857600 exceeded")
    with pytest.raises(RayRequestRefused, match=r"413: Maximum request body"):
        await upload_working_dir(client, {"working_dir": working_dir})
    fake.token = "t"
    with pytest.raises(RayAuthError, match=r"401"):
        await upload_working_dir(client, {"working_dir": working_dir})
    assert puts(fake) == 1


async def test_the_server_takes_what_packaging_takes(fake: FakeDashboard) -> None:
    async with RayClient(ClusterConfig(url=fake.url)) as client:
        await client.cluster.put_package("gcs://most.zip", bytes(100 * 1024 * 1024))
        assert await client.cluster.has_package("gcs://most.zip")
        with pytest.raises(RayRequestRefused, match=r"413: Maximum request body size 104857600 exceeded"):
            await client.cluster.put_package("gcs://more.zip", bytes(100 * 1024 * 1024 + 1))
