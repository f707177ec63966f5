"""One aiohttp session per cluster and event loop: credentials, TLS, timeouts, and status -> error.

Redirects are not followed (a login page is an error, and credentials stay with the address they were given for),
proxy variables of the environment are not read, and cookies are not kept.
"""

from __future__ import annotations

import asyncio
import errno
import io
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import aiohttp
import msgspec
from multidict import CIMultiDict

from airflow_provider_ray import __version__
from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.decoding import decoded, decoded_rows
from airflow_provider_ray.client.api.names import Resolver
from airflow_provider_ray.client.errors import (
    RayAnswerTooLarge,
    RayAuthError,
    RayClusterUnavailable,
    RayConfigError,
    RayNotADashboard,
    RayNotFound,
    RayRequestError,
    RayRequestRefused,
)
from airflow_provider_ray.client.json_text import sanitized
from airflow_provider_ray.client.threads import in_own_thread

if TYPE_CHECKING:
    from airflow_provider_ray.client.config import ClusterConfig

# Ray answers writes from anything that looks like a browser with 405 (since 2.54 for every route).
USER_AGENT = f"airflow-provider-ray-fleet/{__version__}"
ERROR_TEXT_LIMIT = 64 * 1024
_LATER = frozenset({408, 425, 429})
# The head asks its agent and answers the agent's 4xx with a 500 that quotes it, in one of these spellings.
_WRAPPED = re.compile(
    r"""
    \bstatus(?:\ code)?[ :=]{1,3}(4\d\d)\b   # Request failed with status code 413: ...
    | \b(4\d\d)(?:,\ message='|[ :,-]{1,3})([A-Za-z][A-Za-z ]+)  # 413: Request Entity Too Large
    | \bHTTP([A-Z][A-Za-z]+)                     # aiohttp.web_exceptions.HTTPRequestEntityTooLarge: ...
    """,
    re.VERBOSE,
)
# Their reason phrases in one spelling; aiohttp and Python up to 3.12 have those of before RFC 9110.
_REFUSALS = {each.phrase.lower().replace(" ", ""): each.value for each in HTTPStatus if 400 <= each < 500} | {
    "requestentitytoolarge": 413,
    "contenttoolarge": 413,
    "uritoolong": 414,
    "unprocessablecontent": 422,
    "requesturitoolong": 414,
    "requestedrangenotsatisfiable": 416,
    "unprocessableentity": 422,
}

T = TypeVar("T")


class Http:
    """Requests to one base URL with one set of credentials.

    :param base_url: ``scheme://host:port/prefix`` without a trailing slash.
    :param config: timeouts and TLS settings.
    :param token: bearer token for this base URL, or None.
    :param headers: additional headers for this base URL.
    :param token_field: where the connection holds the token, for the error that asks for one.
    """

    def __init__(
        self,
        base_url: str,
        config: ClusterConfig,
        *,
        token: str | None,
        headers: Mapping[str, str],
        token_field: str = "password",
    ) -> None:
        self.base_url = base_url
        self._config = config
        self._token_field = token_field
        # A megabyte may unpack to a gigabyte, and nothing that Ray sends needs it.
        self._headers = CIMultiDict({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
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
        # A list of jobs may take what it takes to begin: callers that cannot wait for it have limits of their own.
        self.list_timeout = aiohttp.ClientTimeout(
            total=self._timeout.total,
            sock_connect=config.connect_timeout,
            sock_read=pacing.LIST_READ_TIMEOUTS * config.read_timeout,
        )
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        tls = await in_own_thread(partial(_tls, self._config))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, resolver=Resolver(self._config.connect_timeout)),
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
        seconds = self._config.read_timeout + len(body) / pacing.SLOWEST_UPLOAD_BYTES_PER_SECOND
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=self._config.connect_timeout)
        # aiohttp sends a file piece by piece, but would write bytes in one go and block the event loop.
        await self.send("PUT", path, data=io.BytesIO(body), timeout=limits)

    async def send(self, method: str, path: str, **options: Any) -> None:
        """Send a request whose answer says nothing but that it has succeeded."""
        async with self.open(method, path, **options) as response:
            await read_within(response, pacing.ANSWER_BYTES, self._name(method, path))

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
        said = await read_reason(response)
        return refusal(name, response.status, said, response.headers.get("Location"), self._token_field)


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


def refusal(
    name: str, status: int, text: str, location: str | None = None, token_field: str = "password"
) -> RayRequestError:
    """The error for an answer that is not a success."""
    said = _reason(text)
    if status == 401:
        hint = f"the cluster requires a token; set it in the {token_field} field of the connection"
        return RayAuthError(name, f"401, {hint} ({said})", status)
    if status == 403:
        hint = f"the token in the {token_field} field of the connection was rejected"
        return RayAuthError(name, f"403, {hint} ({said})", status)
    if status == 404:
        return RayNotFound(name, f"404: {said}", status)
    meant = (_wrapped(text) if status == 500 else None) or status
    if meant in _LATER or meant >= 500:
        return RayClusterUnavailable(name, f"{status}: {said}", status)
    if 300 <= status < 400:
        said = f"redirected to {location!r}: a login page?"
    return RayRequestRefused(name, f"{status}: {said}", status)


def _wrapped(text: str) -> int | None:
    """The 4xx that a 500 quotes."""
    for status, leading, phrase, exception in _WRAPPED.findall(text):
        if status:
            return int(status)
        named = next((code for name, code in _REFUSALS.items() if _plain(phrase or exception).startswith(name)), None)
        if named is not None and named == int(leading or named):
            return named
    return None


def _plain(phrase: str) -> str:
    return phrase.lower().replace(" ", "")


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
    """The last line with words: Ray answers with an entire server traceback, or two."""
    lines = [line.strip() for line in text.splitlines() if any(character.isalnum() for character in line)]
    return lines[-1][:500] if lines else "no reason given"
