"""One aiohttp session per cluster and event loop: credentials, TLS, timeouts, and status -> error.

Redirects are not followed (a login page is an error, and credentials stay with the address they were given for),
proxy variables of the environment are not read, and cookies are not kept.
"""

from __future__ import annotations

import asyncio
import errno
import io
import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import aiohttp
import msgspec
from multidict import CIMultiDict

from airflow_provider_ray import __version__
from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.addresses import redirection
from airflow_provider_ray.client.errors import (
    RayAuthError,
    RayClusterUnavailable,
    RayConfigError,
    RayNotADashboard,
    RayNotFound,
    RayRequestError,
    RayRequestRefused,
)
from airflow_provider_ray.client.json_text import sanitized

if TYPE_CHECKING:
    from airflow_provider_ray.client.config import ClusterConfig

# Ray answers writes from anything that looks like a browser with 405 (since 2.54 for every route).
USER_AGENT = f"airflow-provider-ray-fleet/{__version__}"
ERROR_TEXT_LIMIT = 64 * 1024
_LATER = frozenset({408, 425, 429})
_TITLE = re.compile(r"<title>\s*(\S[^<]{0,200})</title>", re.IGNORECASE)
# The head asks its agent and answers the agent's 4xx with a 500.
_WRAPPED = re.compile(r"Request failed with status code (4\d\d)")

T = TypeVar("T")


class Http:
    """Requests to one base URL with one set of credentials.

    :param base_url: ``scheme://host:port/prefix`` without a trailing slash.
    :param config: timeouts and TLS settings.
    :param token: bearer token for this base URL, or None.
    :param headers: additional headers for this base URL.
    :param token_field: where the connection holds the token, for the error that asks for one.
    :param address_field: where it holds the address, for the error about a redirect.
    """

    def __init__(
        self,
        base_url: str,
        config: ClusterConfig,
        *,
        token: str | None,
        headers: Mapping[str, str],
        token_field: str = "password",
        address_field: str = "host",
    ) -> None:
        self.base_url = base_url
        self._config = config
        self._token_field = token_field
        self._address_field = address_field
        self._headers = CIMultiDict({"User-Agent": USER_AGENT})
        self._headers.update(headers)
        if token:
            # Ray's second header is for proxies that own the first.
            name = "X-Ray-Authorization" if "Authorization" in self._headers else "Authorization"
            self._headers[name] = f"Bearer {token}"
        self._timeout = aiohttp.ClientTimeout(
            total=pacing.READ_TIMEOUTS_PER_REQUEST * config.read_timeout,
            sock_connect=config.connect_timeout,
            sock_read=config.read_timeout,
        )
        # A log may flow for as long as it likes, as long as it flows.
        self.stream_timeout = aiohttp.ClientTimeout(sock_connect=config.connect_timeout, sock_read=config.read_timeout)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=await asyncio.to_thread(_tls, self._config)),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=self._timeout,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(self, method: str, path: str, answer: type[T], **options: Any) -> T:
        """Send a request and return its answer, decoded and checked.

        :param answer: the type that the JSON must have.
        :raises RayNotADashboard: also when the JSON has another type; the error says what was expected, and where.
        """
        async with self.open(method, path, **options) as response:
            text = await response.read()
        name = self._name(method, path)
        try:
            return decoded(text, answer)
        except msgspec.ValidationError as error:
            raise RayNotADashboard(name, f"answered, but not as Ray's dashboard does ({error})") from error
        except (ValueError, RecursionError) as error:
            reason = f"answered {response.status} with {response.content_type}, which is not Ray's JSON"
            raise RayNotADashboard(name, reason, response.status) from error

    async def upload(self, path: str, body: bytes) -> None:
        """PUT bytes; the time limit grows with their number."""
        seconds = self._config.read_timeout + len(body) / pacing.SLOWEST_UPLOAD_BYTES_PER_SECOND
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=self._config.connect_timeout)
        # aiohttp sends a file piece by piece, but would write bytes in one go and block the event loop.
        async with self.open("PUT", path, data=io.BytesIO(body), timeout=limits) as response:
            await response.read()

    @asynccontextmanager
    async def open(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield the answer once its status is known to be a success.

        :raises RayRequestError: also for faults while the body is read inside the block.
        """
        async with self.raw(method, path, **options) as response:
            if not 200 <= response.status < 300:
                raise await self._refusal(self._name(method, path), response)
            yield response

    @asynccontextmanager
    async def raw(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield the answer, whatever its status; network faults become our errors."""
        if self._session is None:
            raise RuntimeError("The client is used outside of its 'async with' block.")
        name = self._name(method, path)
        try:
            async with self._session.request(
                method, self.base_url + path, allow_redirects=False, **options
            ) as response:
                yield response
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(name, error) from error

    def _name(self, method: str, path: str) -> str:
        return f"{method} {self.base_url}{path}"

    async def _refusal(self, name: str, response: aiohttp.ClientResponse) -> RayRequestError:
        if 300 <= response.status < 400:
            return RayRequestRefused(name, f"{response.status}: {self.redirection(response)}", response.status)
        return refusal(name, response.status, await read_reason(response), self._token_field)

    def redirection(self, response: aiohttp.ClientResponse) -> str:
        """What an answer says that redirects, and what to change."""
        return redirection(str(response.url), response.headers.get("Location"), self._address_field)


async def read_reason(response: aiohttp.ClientResponse) -> str:
    """The beginning of an error's body, as much of it as arrives in time; the status is known without it."""
    text = b""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(pacing.REASON_SECONDS):
            async for piece in response.content.iter_any():
                text += piece
                if len(text) > ERROR_TEXT_LIMIT:
                    break
    # It becomes part of an error, and that of an event or a log.
    said: str = sanitized(text.decode("utf-8", "replace"))
    return said


def decoded(text: bytes, answer: type[T]) -> T:
    """Decode JSON to a type and check it; strings come out as :func:`sanitized` leaves them.

    :raises msgspec.ValidationError: when the JSON has another type.
    :raises ValueError: when it is not JSON.
    """
    if rb"\u0000" not in text:
        try:
            return msgspec.json.decode(text, type=answer)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Ray writes what Python's json writes: NaN or a lone surrogate in one job's runtime_env, which nobody
            # reads, must not make the whole list unreadable.
            pass
    return msgspec.convert(sanitized(json.loads(text)), answer)


def refusal(name: str, status: int, text: str, token_field: str = "password") -> RayRequestError:
    """The error for an answer that is neither a success nor a redirect."""
    said = _reason(text)
    if status == 401:
        hint = f"the cluster requires a token; set it in the {token_field} field of the connection"
        return RayAuthError(name, f"401, {hint} ({said})", status)
    if status == 403:
        hint = f"the token in the {token_field} field of the connection was rejected"
        return RayAuthError(name, f"403, {hint} ({said})", status)
    if status == 404:
        return RayNotFound(name, f"404: {said}", status)
    wrapped = _WRAPPED.search(text) if status == 500 else None
    meant = int(wrapped[1]) if wrapped else status
    # Ray's 501 says that Serve is not installed.
    if meant in _LATER or (meant >= 500 and meant != 501):
        return RayClusterUnavailable(name, f"{status}: {said}", status)
    return RayRequestRefused(name, f"{status}: {said}", status)


def _fault(name: str, error: aiohttp.ClientError | OSError) -> RayRequestError:
    """The error for a request without a proper answer."""
    if isinstance(error, aiohttp.ClientSSLError):
        untrusted = isinstance(error, aiohttp.ClientConnectorCertificateError)
        advice = "set ca_cert in the connection to the CA that signed it" if untrusted else "is it an https port?"
        return RayRequestRefused(name, f"TLS: {error}; {advice}")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return RayClusterUnavailable(name, f"no connection: {error}", never_sent=True)
    if isinstance(error, TimeoutError):
        return RayClusterUnavailable(name, f"no answer in time ({error or 'timeout'})")
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL):
        return RayNotADashboard(name, f"the address or the answer is not HTTP: {error}")
    # A server that misses a client certificate hangs up without a word (TLS 1.3), or resets the connection.
    hung_up = isinstance(error, aiohttp.ServerDisconnectedError) or getattr(error, "errno", None) == errno.ECONNRESET
    advice = "; does it demand a client certificate (client_cert)?" if hung_up and " https:" in name else ""
    return RayClusterUnavailable(name, f"{type(error).__name__}: {error}{advice}")


def _tls(config: ClusterConfig) -> ssl.SSLContext | bool:
    """TLS settings of a cluster; loading the system's CAs takes a while, so not for plain HTTP."""
    if not any(url and url.startswith("https:") for url in (config.url, config.serve_url)):
        return True
    ca_file = config.verify if isinstance(config.verify, str) else None
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise RayConfigError("ca_cert", f"{ca_file!r} ({error})", "the path of a readable PEM file") from error
    if config.verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.client_cert:
        try:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(config.client_cert, config.client_key, password="")
        except OSError as error:
            got = f"{config.client_cert!r} with key {config.client_key!r} ({error})"
            raise RayConfigError("client_cert", got, "readable PEM files that belong together") from error
    return context


def _reason(text: str) -> str:
    """The title of a page, else the last line with words: Ray answers with an entire server traceback, or two."""
    if title := _TITLE.search(text):
        return title[1]
    lines = [line.strip() for line in text.splitlines() if any(character.isalnum() for character in line)]
    return lines[-1][:500] if lines else "no reason given"
