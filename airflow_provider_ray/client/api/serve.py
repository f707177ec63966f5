"""Ray Serve (Ray 2.49-2.60): the applications of a cluster, and calls to their routes."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any, TypeAlias

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.faults import read_reason
from airflow_provider_ray.client.api.http import Http, read_within
from airflow_provider_ray.client.api.models import ServeDetails
from airflow_provider_ray.client.api.serve_method import check_method
from airflow_provider_ray.client.durations import seconds
from airflow_provider_ray.client.errors import RayAnswerTooLarge, RayConfigError, RayServeBadAnswer
from airflow_provider_ray.client.json_text import is_suspect, sanitized
from airflow_provider_ray.client.values import as_json, check_headers

# Route prefix -> application.
Routes: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServeAnswer:
    """What an application has answered.

    :param value: the decoded JSON; None for an empty answer.
    :param status: HTTP status.
    :param size: bytes of the body.
    :param seconds: from the request to the end of the answer.
    """

    value: Any
    status: int
    size: int
    seconds: float


class Serve:
    """Serve on one cluster.

    :param dashboard: requests to the dashboard, which carry the cluster's token.
    :param proxy: requests to Serve's own HTTP proxy, which carry Serve's credentials or none.
    """

    def __init__(self, dashboard: Http, proxy: Http) -> None:
        self._dashboard = dashboard
        self._proxy = proxy

    async def details(self) -> ServeDetails:
        """Applications and HTTP options, as the dashboard knows them."""
        return await self._dashboard.read("GET", "/api/serve/applications/", ServeDetails, most=pacing.SERVE_BYTES)

    async def base_url(self, details: ServeDetails | None = None) -> str | None:
        """Address of Serve's proxy; None while Serve is not running and the connection does not specify it.

        Ray reports bind addresses and addresses inside the cluster, so the host is that of the dashboard. The port,
        which any job can set, was checked when it was decoded.

        :raises RayConfigError: when the dashboard or Serve itself is behind TLS, so that the address must be known.
        """
        # That of the credentials in use: those in the connection may be for another address by now.
        config = self._proxy.config
        if config.serve_url:
            return config.serve_url
        if config.url.startswith("https:"):
            raise RayConfigError("serve_url", "nothing", "the address of Serve, since the dashboard's is behind TLS")
        details = details or await self.details()
        if details.port is None:
            return None
        if details.has_tls:
            raise RayConfigError("serve_url", "nothing", "the https address of Serve, whose proxies speak TLS")
        return f"http://{URL(config.url).host_subcomponent}:{details.port}"

    async def routes(self, base_url: str) -> Routes:
        """Routes that the proxy knows by now."""
        return await self._ask_for_routes(base_url)

    async def routes_of_many(self, base_url: str, connections: int) -> Sequence[Routes]:
        """The same from that many connections at once, which several proxies may have accepted."""
        return await asyncio.gather(*(self._ask_for_routes(base_url) for _ in range(connections)))

    def paced(self, seconds: float) -> float:
        """Seconds until the next check of someone who wants to pause for that long."""
        return seconds

    async def _ask_for_routes(self, base_url: str) -> Routes:
        """Ask on a connection of its own."""
        url, alone = f"{base_url}/-/routes", {"Connection": "close"}
        routes = await self._proxy.read("GET", url, dict[str, str], headers=alone)
        self._proxy.accepted = True
        return routes

    async def call(
        self,
        url: str,
        *,
        method: str = "GET",
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        request_timeout: float | timedelta = 60.0,
        max_answer_bytes: int = 1024 * 1024,
    ) -> ServeAnswer:
        """Call a route and return its answer.

        A call that was rejected is repeated, once, if the connection holds other credentials for Serve by then.

        :param request_timeout: limit for the entire request, in seconds or as a ``timedelta``; it is passed to
            Ray 2.54+, which then gives up as well.
        :param max_answer_bytes: largest answer that is accepted.
        :raises RayConfigError: when the method or a header cannot be sent, or the limit is no number.
        :raises RayServeBadAnswer: for an error status, for an answer that is too large, or not the JSON that XCom can
            hold (no NaN, no integers over 64 bits, no NUL and no half of a surrogate pair in strings).
        :raises RayClusterUnavailable: when there is no answer.
        :raises RayAuthLapsed: when the call was not sent, since the connection has another address for Serve by now.
        """
        check_request(method, headers, max_answer_bytes)
        request_timeout = seconds("request_timeout", request_timeout)
        options: dict[str, Any] = {} if data is None else {"data": as_json("data", data).encode()}
        limits = aiohttp.ClientTimeout(total=request_timeout, sock_connect=self._proxy.config.connect_timeout)
        sent = CIMultiDict({"x-request-timeout-seconds": str(request_timeout)})
        if data is not None:
            sent["Content-Type"] = "application/json"
        sent.update(headers or {})
        send = partial(self._send, method, url, max_answer_bytes, headers=sent, timeout=limits, **options)
        version = self._proxy.version
        try:
            return await send()
        except RayServeBadAnswer as error:
            # An application may have reasons of its own to refuse a call, and then gets it once if at all possible.
            if error.status not in (401, 403) or not await self._proxy.is_renewed(version, by_new_ones=True):
                raise
        return await send()

    async def _send(self, method: str, url: str, most: int, **options: Any) -> ServeAnswer:
        started, request = monotonic(), f"{method} {url}"
        async with self._proxy.raw(method, url, **options) as response:
            if not 200 <= response.status < 300:
                raise RayServeBadAnswer(f"{request}: {response.status}: {await self._said(response)}", response.status)
            try:
                answer = await read_within(response, most, request, "the limit (max_answer_bytes)")
            except RayAnswerTooLarge as error:
                raise RayServeBadAnswer(str(error), response.status) from error
            value = _decoded(answer, request, response)
            return ServeAnswer(value, response.status, len(answer), monotonic() - started)

    async def _said(self, response: aiohttp.ClientResponse) -> str:
        if 300 <= response.status < 400:
            return self._proxy.redirection(response)
        return (await read_reason(response))[:500]


def check_request(method: Any, headers: Any, max_answer_bytes: Any) -> None:
    """Reject a request that cannot be sent.

    :raises RayConfigError: naming the field.
    """
    check_method(method)
    check_headers("headers", {} if headers is None else headers)
    if not isinstance(max_answer_bytes, int) or max_answer_bytes < 1:
        raise RayConfigError("max_answer_bytes", repr(max_answer_bytes), "a number of bytes above 0")


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
