"""One aiohttp session per server and event loop: credentials, timeouts, and limits.

Redirects are not followed (a login page is an error, and credentials stay with the address they were given for),
proxy variables of the environment are not read, and cookies are not kept.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import aiohttp
import msgspec
from multidict import CIMultiDict

from airflow_provider_ray import __version__
from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.access import Access, Shown
from airflow_provider_ray.client.api.addresses import redirection
from airflow_provider_ray.client.api.decoding import decoded, decoded_rows
from airflow_provider_ray.client.api.faults import network_fault, read_reason, refusal
from airflow_provider_ray.client.api.names import Resolver
from airflow_provider_ray.client.errors import (
    RayAnswerTooLarge,
    RayAuthLapsed,
    RayNotADashboard,
    RayRequestError,
    RayRequestRefused,
)
from airflow_provider_ray.client.threads import in_own_thread

if TYPE_CHECKING:
    from airflow_provider_ray.client.config import ClusterConfig, Endpoint

# Ray answers writes from anything that looks like a browser with 405 (since 2.54 for every route).
USER_AGENT = f"airflow-provider-ray-fleet/{__version__}"
T = TypeVar("T")


class Http:
    """Requests to one of a cluster's servers, with the credentials for it.

    :param access: what the cluster's connection holds.
    :param endpoint: picks the server from it.
    :param accepted: the server is known to have accepted the credentials before.
    """

    def __init__(
        self, access: Access, endpoint: Callable[[ClusterConfig], Endpoint], *, accepted: bool = False
    ) -> None:
        self.accepted = accepted
        self._shown = Shown(access, endpoint)
        self._session: aiohttp.ClientSession | None = None

    @property
    def base_url(self) -> str:
        """``scheme://host:port/prefix`` without a trailing slash; empty if requests name their complete URL."""
        return self._shown.endpoint.url

    @property
    def config(self) -> ClusterConfig:
        """The cluster, with the credentials that this server is shown now."""
        return self._shown.held.config

    @property
    def stream_timeout(self) -> aiohttp.ClientTimeout:
        """Limits for a log, which may flow for as long as it likes, as long as it flows."""
        config = self.config
        return aiohttp.ClientTimeout(sock_connect=config.connect_timeout, sock_read=config.read_timeout)

    @property
    def list_timeout(self) -> aiohttp.ClientTimeout:
        """Limits for a list of jobs, which may take long to begin; callers in a hurry have their own limits."""
        config = self.config
        return aiohttp.ClientTimeout(
            total=pacing.READ_TIMEOUTS_PER_REQUEST * config.read_timeout,
            sock_connect=config.connect_timeout,
            sock_read=pacing.LIST_READ_TIMEOUTS * config.read_timeout,
        )

    async def __aenter__(self) -> Self:
        await self._shown.open(accepted=self.accepted)
        config = self.config
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=Resolver(config.connect_timeout)),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=pacing.READ_TIMEOUTS_PER_REQUEST * config.read_timeout,
                sock_connect=config.connect_timeout,
                sock_read=config.read_timeout,
            ),
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        most: int | None = None,
        decode: Callable[[bytes, type[T]], T] = decoded,
        **options: Any,
    ) -> T:
        """Send a request and return its answer, decoded and checked.

        :param answer: the type that the JSON must have.
        :param most: how many bytes the answer may have; default ``pacing.ANSWER_BYTES``.
        :param decode: makes the value from the bytes.
        :raises RayAnswerTooLarge: when it has more.
        :raises RayNotADashboard: also when the JSON has another type; the error says what was expected, and where.
        """
        name = self._name(method, path)
        async with self.open(method, path, **options) as response:
            text = await read_within(response, pacing.ANSWER_BYTES if most is None else most, name)
        try:
            if len(text) <= pacing.DECODED_AT_ONCE_BYTES:
                return decode(text, answer)
            return await in_own_thread(partial(decode, text, answer))
        except msgspec.ValidationError as error:
            raise RayNotADashboard(name, f"answered, but not as Ray's dashboard does ({error})") from error
        except (ValueError, RecursionError) as error:
            reason = f"answered {response.status} with {response.content_type}, which is not Ray's JSON"
            raise RayNotADashboard(name, reason, response.status) from error

    async def rows(
        self,
        path: str,
        answer: type[list[T]],
        *,
        limit: int,
        most: int,
        params: Sequence[tuple[str, str]] = (),
        **options: Any,
    ) -> list[T]:
        """A list of the state API, with all details.

        :param answer: the type of the list.
        :param limit: how many rows at most.
        :param most: how many bytes the answer may have.
        :param params: which rows.
        :raises RayNotADashboard: also when there are more rows than that.
        """
        wanted = [("detail", "1"), ("limit", str(limit)), *params]
        found = await self.read("GET", path, answer, decode=decoded_rows, most=most, params=wanted, **options)
        self.check_number("GET", path, found, limit)
        return found

    def check_number(self, method: str, path: str, found: Sequence[object], most: int) -> None:
        """Refuse a list that is longer than Ray's can be.

        :raises RayNotADashboard: with the number.
        """
        if len(found) > most:
            got = f"answered with {len(found)} rows; expected {most} at most"
            raise RayNotADashboard(self._name(method, path), got)

    async def upload(self, path: str, body: bytes) -> None:
        """PUT bytes; the time limit grows with their number."""
        config = self.config
        seconds = config.read_timeout + len(body) / pacing.SLOWEST_UPLOAD_BYTES_PER_SECOND
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=config.connect_timeout)
        # aiohttp sends a file piece by piece, but would write bytes in one go and block the event loop.
        await self.send("PUT", path, data=lambda: io.BytesIO(body), timeout=limits)

    async def send(self, method: str, path: str, **options: Any) -> None:
        """Send a request whose answer says nothing but that it has succeeded."""
        async with self.open(method, path, **options) as response:
            await read_within(response, pacing.ANSWER_BYTES, self._name(method, path))

    @asynccontextmanager
    async def open(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield the answer once its status is known to be a success.

        A request that was rejected is repeated at once if the connection has other credentials by then: nothing has
        processed it.

        :raises RayRequestError: also for faults while the body is read inside the block.
        :raises RayAuthLapsed: when the credentials were rejected, but had been accepted before or have been replaced.
        """
        async with AsyncExitStack() as stack:
            try:
                response = await self._send(stack, method, path, **options)
            except RayAuthLapsed as error:
                if not error.has_renewed:
                    raise
                response = await self._send(stack, method, path, **options)
            yield response

    async def _send(self, stack: AsyncExitStack, method: str, path: str, **options: Any) -> aiohttp.ClientResponse:
        """The answer, if it is a success; the stack closes it."""
        version = self.version
        async with AsyncExitStack() as sending:
            response = await sending.enter_async_context(self.raw(method, path, **options))
            if not 200 <= response.status < 300:
                fault = await self._refusal(self._name(method, path), response)
                raise await self._judged(fault, version)
            self._shown.has_worked(version)
            await stack.enter_async_context(sending.pop_all())
        return response

    @asynccontextmanager
    async def raw(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | Callable[[], io.BytesIO] | None = None,
        **options: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield the answer, whatever its status; network faults become our errors.

        :param headers: additional headers.
        :param data: the body, or what opens it.
        """
        if self._session is None:
            raise RuntimeError("The client is used outside of its 'async with' block.")
        shown, name = self._shown, self._name(method, path)
        if shown.held.tls is None and not await shown.is_renewed(shown.version):
            raise RayAuthLapsed(name, shown.result)
        version, endpoint = shown.version, shown.endpoint
        url = endpoint.url + path
        if not f"{url}/".startswith(endpoint.prefix):
            # Made from an earlier address, which the credentials in use are not for.
            raise RayAuthLapsed(name, f"the connection has another {endpoint.address_field} by now")
        try:
            async with self._session.request(
                method,
                url,
                allow_redirects=False,
                ssl=shown.held.tls or True,
                headers=_headers(endpoint, headers),
                data=data() if callable(data) else data,
                **options,
            ) as response:
                yield response
        except (aiohttp.ClientError, OSError) as error:
            raise await self._judged(network_fault(name, error), version) from error

    async def is_renewed(self, version: int, *, by_new_ones: bool = False) -> bool:
        """Look rejected credentials up again; whether others are in use now. See :meth:`.Shown.is_renewed`.

        :param version: :attr:`version` when the request was sent.
        """
        return await self._shown.is_renewed(version, by_new_ones=by_new_ones)

    @property
    def version(self) -> int:
        """Increases when other credentials come into use."""
        return self._shown.version

    def _name(self, method: str, path: str) -> str:
        return f"{method} {self.base_url}{path}"

    async def _refusal(self, name: str, response: aiohttp.ClientResponse) -> RayRequestError:
        if 300 <= response.status < 400:
            return RayRequestRefused(name, f"{response.status}: {self.redirection(response)}", response.status)
        return refusal(name, response.status, await read_reason(response), self._shown.endpoint)

    def redirection(self, response: aiohttp.ClientResponse) -> str:
        """What an answer says that redirects, and what to change."""
        field = self._shown.endpoint.address_field
        return redirection(str(response.url), response.headers.get("Location"), field)

    async def _judged(self, fault: RayRequestError, version: int) -> RayRequestError:
        """The fault; a passing one if it is about credentials that were accepted before or have been replaced."""
        if not fault.about_credentials:
            return fault
        is_renewed = await self.is_renewed(version)
        if fault.transient or not (self.version or self.accepted):
            return fault
        lapsed = RayAuthLapsed.from_message(f"{fault}; {self._shown.result}")
        lapsed.status, lapsed.has_renewed = fault.status, is_renewed
        return lapsed


def _headers(endpoint: Endpoint, more: Mapping[str, str] | None) -> CIMultiDict[str]:
    """Headers of a request."""
    # A megabyte may unpack to a gigabyte, and nothing that Ray sends needs it.
    headers = CIMultiDict({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
    headers.update(endpoint.headers)
    if endpoint.basic_auth:
        headers["Authorization"] = endpoint.basic_auth
    if endpoint.token:
        # Ray's second header is for proxies that own the first.
        name = "X-Ray-Authorization" if "Authorization" in headers else "Authorization"
        headers[name] = f"Bearer {endpoint.token}"
    headers.update(more or {})
    return headers


async def read_within(response: aiohttp.ClientResponse, most: int, name: str, limit: str = "the limit") -> bytes:
    """The body of an answer, no more of which is read than it may have.

    :param most: how many bytes that is, after decompression.
    :param name: the request, for the error.
    :param limit: what the reader knows the limit as, for the error.
    :raises RayAnswerTooLarge: when it has more.
    """
    announced = response.content_length or 0
    pieces, size = [], announced
    if announced <= most:
        size = 0
        async for piece in response.content.iter_any():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                break
    if size > most:
        raise RayAnswerTooLarge(name, announced if announced > most else None, most, response.status, limit)
    return b"".join(pieces)
