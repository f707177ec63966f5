from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.errors import RayAuthError
from tests.contract.conftest import Cluster

pytestmark = pytest.mark.anyio


async def test_version(cluster: Cluster, client: RayClient) -> None:
    version = await client.cluster.version()
    assert version.ray_version.startswith(f"{cluster.ray[0]}.{cluster.ray[1]}.")
    assert version.at_least(2, 54) == (cluster.ray >= (2, 54))
    assert version.session_name is not None
    assert version.session_name.startswith("session_")


async def test_authentication_mode(cluster: Cluster) -> None:
    async with RayClient(replace(cluster.config, token=None)) as client:
        expected = "token" if cluster.config.token else "disabled"
        assert await client.cluster.authentication_mode() == expected


async def test_a_missing_and_a_wrong_token(cluster: Cluster, client: RayClient) -> None:
    for token, status in ((None, 401), ("wr0ng-token", 403)):
        async with RayClient(replace(cluster.config, token=token)) as other:
            if cluster.config.token is None:
                assert (await other.cluster.version()).ray_version
                continue
            with pytest.raises(RayAuthError, match=str(status)) as caught:
                await other.cluster.version()
            assert caught.value.status == status
            assert "wr0ng-token" not in str(caught.value)


async def test_the_token_in_rays_second_header(cluster: Cluster) -> None:
    headers = {"X-Ray-Authorization": f"Bearer {cluster.config.token}"}
    async with RayClient(replace(cluster.config, token=None, auth_headers=headers)) as client:
        assert (await client.cluster.version()).ray_version


async def test_nodes(client: RayClient) -> None:
    (node,) = await client.cluster.nodes()
    assert (node.state, node.is_head_node) == ("ALIVE", True)
    assert node.resources_total is not None
    assert node.resources_total["CPU"] == 2
    assert len(node.node_id) == 56


async def test_status(client: RayClient) -> None:
    # The autoscaler, which writes it, starts some seconds after the head.
    while "/2.0 CPU" not in (status := await client.cluster.status()):
        assert "No cluster status" in status
        await asyncio.sleep(1)


async def test_serve_that_does_not_run(client: RayClient) -> None:
    details = await client.serve.details()
    assert (details.port, details.applications) == (None, {})
    assert await client.serve.base_url() is None
