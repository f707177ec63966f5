from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from airflow_provider_ray.client.api.faults import network_fault
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayClusterUnavailable, RayConfigError, RayRequestRefused
from tests.fake_dashboard import FakeDashboard
from tests.unit.client.api import certificates
from tests.unit.client.api.certificates import Certificates

pytestmark = pytest.mark.anyio

# The first terminal that a session leader opens is the one that OpenSSL would ask on.
WITH_TERMINAL = """
import asyncio, os, sys
from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.api.ray_client import RayClient

os.open(sys.argv[1], os.O_RDWR)
config = ClusterConfig(url="https://127.0.0.1:1", client_cert=sys.argv[2], client_key=sys.argv[3])

async def main():
    async with RayClient(config):
        print("opened")

try:
    asyncio.run(main())
except RayConfigError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("pem"))


@pytest.fixture
def https(pem: Certificates) -> Iterator[FakeDashboard]:
    with FakeDashboard(tls=pem.server_context()) as dashboard:
        yield dashboard


@pytest.fixture
def mutual(pem: Certificates) -> Iterator[FakeDashboard]:
    with FakeDashboard(tls=pem.server_context(demand_client_certificate=True)) as dashboard:
        yield dashboard


async def version(config: ClusterConfig) -> str:
    async with RayClient(config) as client:
        return (await client.cluster.version()).ray_version


async def test_an_unknown_ca_is_refused_with_advice(https: FakeDashboard) -> None:
    with pytest.raises(RayRequestRefused, match=r"(?i)certificate.verify.failed.*ca_cert") as caught:
        await version(ClusterConfig(url=https.url, token="t0ken"))
    assert not caught.value.transient
    assert https.requests == []


async def test_the_given_ca_is_accepted(https: FakeDashboard, pem: Certificates) -> None:
    assert await version(ClusterConfig(url=https.url, verify=pem.ca)) == "2.60.0"


async def test_verification_can_be_switched_off(https: FakeDashboard) -> None:
    assert await version(ClusterConfig(url=https.url, verify=False)) == "2.60.0"


async def test_a_certificate_for_another_name_is_refused(https: FakeDashboard, pem: Certificates) -> None:
    url = https.url.replace("127.0.0.1", "localhost")
    with pytest.raises(RayRequestRefused, match=r"(?i)hostname mismatch"):
        await version(ClusterConfig(url=url, verify=pem.ca))


async def test_https_to_a_plain_port_says_so(fake: FakeDashboard) -> None:
    with pytest.raises(RayRequestRefused, match=r"TLS.*an https port"):
        await version(ClusterConfig(url=fake.url.replace("http:", "https:")))


async def test_http_to_a_tls_port_is_no_dashboard(https: FakeDashboard) -> None:
    with pytest.raises((RayClusterUnavailable, RayRequestRefused)):
        await version(ClusterConfig(url=https.url.replace("https:", "http:")))


async def test_a_client_certificate_is_shown(mutual: FakeDashboard, pem: Certificates) -> None:
    config = ClusterConfig(url=mutual.url, verify=pem.ca)
    with pytest.raises(RayClusterUnavailable, match=r"client_cert"):
        await version(config)
    shown = replace(config, client_cert=pem.certificate("client"), client_key=pem.key("client"))
    assert await version(shown) == "2.60.0"


async def test_a_certificate_file_may_hold_its_key(mutual: FakeDashboard, pem: Certificates, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(Path(pem.certificate("client")).read_bytes() + Path(pem.key("client")).read_bytes())
    assert await version(ClusterConfig(url=mutual.url, verify=pem.ca, client_cert=str(both))) == "2.60.0"


def test_an_encrypted_key_is_an_error_and_not_a_question(pem: Certificates) -> None:
    controller, terminal = os.openpty()
    try:
        argv = [sys.executable, "-c", WITH_TERMINAL, os.ttyname(terminal), pem.certificate("client")]
        argv.append(pem.key("client-encrypted"))
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, start_new_session=True)
    finally:
        os.close(terminal)
        os.close(controller)
    assert done.stdout.startswith("client_cert: got "), done.stderr
    assert "client-encrypted.key" in done.stdout


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("ca_cert", {"verify": "/no/such/ca.pem"}),
        ("ca_cert", {"verify": __file__}),
        ("client_cert", {"client_cert": "/no/such/cert.pem"}),
        ("client_cert", {"client_cert": __file__}),
    ],
)
async def test_files_that_cannot_be_used_are_named(https: FakeDashboard, field: str, given: dict[str, str]) -> None:
    with pytest.raises(RayConfigError, match=r"PEM") as caught:
        await version(ClusterConfig(url=https.url, **given))  # type: ignore[arg-type]
    assert caught.value.field == field
    assert next(iter(given.values())) in str(caught.value)


async def test_a_key_of_another_certificate_is_refused(https: FakeDashboard, pem: Certificates) -> None:
    config = ClusterConfig(
        url=https.url, verify=pem.ca, client_cert=pem.certificate("client"), client_key=pem.key("server")
    )
    with pytest.raises(RayConfigError, match=r"belong together"):
        await version(config)


@pytest.mark.parametrize("error", [aiohttp.ServerDisconnectedError(), aiohttp.ClientOSError(errno.ECONNRESET, "reset")])
def test_a_server_that_hangs_up_may_want_a_certificate(error: aiohttp.ClientError) -> None:
    assert "client_cert" in str(network_fault("GET https://ray", error))
    assert "client_cert" not in str(network_fault("GET http://ray", error))
