"""Version, nodes, load and packages of a cluster (Ray 2.49-2.60), one method per route."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.models import ROW_LIMIT, ClusterVersion, Node, Word
from airflow_provider_ray.client.api.tested import warn_if_untested
from airflow_provider_ray.client.errors import RayNotADashboard, RayNotFound

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.http import Http


class _Authentication(msgspec.Struct):
    authentication_mode: Word


class _Metadata(msgspec.Struct):
    data: _Python


class _Python(msgspec.Struct, rename="camel"):
    python_version: Word


class _Status(msgspec.Struct):
    data: _Usage


class _Usage(msgspec.Struct, rename="camel"):
    cluster_status: str | None


class Cluster:
    """The cluster itself."""

    def __init__(self, http: Http) -> None:
        self._http = http

    @property
    def url(self) -> str:
        """Address of the dashboard."""
        return self._http.base_url

    async def version(self) -> ClusterVersion:
        """Version of Ray on the head.

        :raises RayNotADashboard: when something else answers at this address.
        """
        try:
            version = await self._http.read("GET", "/api/version", ClusterVersion)
        except RayNotFound as error:
            raise RayNotADashboard(
                f"GET {self._http.base_url}/api/version", "404, which Ray never returns here"
            ) from error
        warn_if_untested(version.ray_version, self._http.base_url)
        return version

    async def authentication_mode(self) -> str:
        """``token`` or ``disabled``; answered without credentials, by Ray 2.52 and newer."""
        try:
            return (await self._http.read("GET", "/api/authentication_mode", _Authentication)).authentication_mode
        except RayNotFound:
            return "disabled"

    async def nodes(self) -> list[Node]:
        """All nodes, dead ones included."""
        return await self._http.rows("/api/v0/nodes", list[Node], limit=ROW_LIMIT, most=pacing.NODES_BYTES)

    async def python_version(self) -> str:
        """Version of Python on the head."""
        return (await self._http.read("GET", "/api/v0/cluster_metadata", _Metadata)).data.python_version

    async def status(self) -> str:
        """Usage and demands as text, the form that autoscaler v1 and v2 both have."""
        params = {"format": "1"}
        answer = await self._http.read("GET", "/api/cluster_status", _Status, most=pacing.USAGE_BYTES, params=params)
        return answer.data.cluster_status or ""

    async def has_package(self, uri: str) -> bool:
        """Whether a package is stored; asking keeps Ray from deleting it for ten minutes."""
        try:
            await self._http.send("GET", _package_path(uri))
        except RayNotFound:
            return False
        return True

    async def put_package(self, uri: str, body: bytes) -> None:
        """Store a package; Ray takes at most 100 MiB."""
        await self._http.upload(_package_path(uri), body)


def _package_path(uri: str) -> str:
    return "/api/packages/" + uri.replace("://", "/", 1)
