"""Ray Serve (Ray 2.49-2.60): the applications of a cluster, and calls to their routes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.http import Http, read_reason, read_within
from airflow_provider_ray.client.api.models import ServeDetails
from airflow_provider_ray.client.config import ClusterConfig, check_headers
from airflow_provider_ray.client.durations import seconds
from airflow_provider_ray.client.errors import RayAnswerTooLarge, RayConfigError, RayServeBadAnswer
from airflow_provider_ray.client.json_text import is_suspect, sanitized
from airflow_provider_ray.client.values import as_json

METHODS = ("GET", "POST", "PUT", "DELETE")


class Serve:
    """Serve on one cluster.

    :param dashboard: requests to the dashboard, which carry the cluster's token.
    :param proxy: requests to Serve's own HTTP proxy, which carry Serve's credentials or none.
    """

    def __init__(self, dashboard: Http, proxy: Http, config: ClusterConfig) -> None:
        self._dashboard = dashboard
        self._proxy = proxy
        self._config = config

    async def details(self) -> ServeDetails:
        """Applications and HTTP options, as the dashboard knows them."""
        return await self._dashboard.read("GET", "/api/serve/applications/", ServeDetails, most=pacing.SERVE_BYTES)

    async def base_url(self, details: ServeDetails | None = None) -> str | None:
        """Address of Serve's proxy; None while Serve is not running and the connection does not specify it.

        Ray reports bind addresses and addresses inside the cluster, so the host is that of the dashboard. Port and root
        path, which any job can set, were checked when they were decoded.

        :raises RayConfigError: when the dashboard is behind TLS, which says nothing about Serve's address.
        """
        if self._config.serve_url:
            return self._config.serve_url
        if self._config.url.startswith("https:"):
            raise RayConfigError("serve_url", "nothing", "the address of Serve, since the dashboard's is behind TLS")
        details = details or await self.details()
        if details.port is None:
            return None
        host = URL(self._config.url).host_subcomponent
        return f"http://{host}:{details.port}{details.root_path.rstrip('/')}"

    async def routes(self, base_url: str) -> Mapping[str, str]:
        """Routes that the proxy knows by now, route prefix -> application; requested on a separate connection."""
        return await self._proxy.read("GET", f"{base_url}/-/routes", dict[str, str], headers={"Connection": "close"})

    async def call(
        self,
        url: str,
        *,
        method: str = "GET",
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        request_timeout: float | timedelta = 60.0,
        max_answer_bytes: int = 1024 * 1024,
    ) -> Any:
        """Call a route and return the decoded JSON of its answer; None for an empty one.

        :param request_timeout: limit for the entire request, in seconds or as a ``timedelta``; it is passed to
            Ray 2.54+, which then gives up as well.
        :param max_answer_bytes: largest answer that is accepted.
        :raises RayConfigError: when the method or a header cannot be sent.
        :raises RayServeBadAnswer: for an error status, for an answer that is too large, or not the JSON that XCom can
            hold (no NaN, no integers over 64 bits, no NUL and no half of a surrogate pair in strings).
        :raises RayClusterUnavailable: when there is no answer.
        """
        check_request(method, headers)
        request_timeout = seconds("request_timeout", request_timeout)
        options: dict[str, Any] = {} if data is None else {"data": as_json("data", data).encode()}
        limits = aiohttp.ClientTimeout(total=request_timeout, sock_connect=self._config.connect_timeout)
        sent = CIMultiDict({"x-request-timeout-seconds": str(request_timeout)})
        if data is not None:
            sent["Content-Type"] = "application/json"
        sent.update(headers or {})
        async with self._proxy.raw(method, url, headers=sent, timeout=limits, **options) as response:
            request = f"{method} {url}"
            if not 200 <= response.status < 300:
                text = await read_reason(response)
                raise RayServeBadAnswer(f"{request}: {response.status}: {text[:500]}", response.status)
            try:
                answer = await read_within(response, max_answer_bytes, request, "the limit (max_answer_bytes)")
            except RayAnswerTooLarge as error:
                raise RayServeBadAnswer(str(error), response.status) from error
            return _decoded(answer, request, response)


def check_request(method: str, headers: Mapping[str, str] | None) -> None:
    """Reject a request that cannot be sent.

    :raises RayConfigError: naming the field.
    """
    if method.upper() not in METHODS:
        raise RayConfigError("method", repr(method), f"one of {', '.join(METHODS)}")
    check_headers("headers", headers or {})


def _decoded(answer: bytes, request: str, response: aiohttp.ClientResponse) -> Any:
    if not answer:
        return None
    try:
        decoded = json.loads(answer, parse_constant=_refuse, parse_float=_finite, parse_int=_integer)
        if is_suspect(answer) and sanitized(decoded) != decoded:
            raise ValueError("NUL, or half of a surrogate pair")
        return decoded
    except (ValueError, RecursionError) as error:
        start = answer[:200].decode("utf-8", "replace")
        reason = f"not JSON that XCom can hold ({error})"
        message = f"{request}: the answer is {response.content_type}, {reason}; it begins with {start!r}"
        raise RayServeBadAnswer(message, response.status) from error


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _integer(text: str) -> int:
    """XCom stores integers of 64 bits."""
    value = int(text)
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"{text[:30]} is out of range")
    return value
