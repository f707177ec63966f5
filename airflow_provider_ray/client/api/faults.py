"""What an answer that is not a success means, or none at all: status and text, or the fault of a network -> error."""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.credentials import HIDDEN, header_secrets, without_secrets
from airflow_provider_ray.client.errors import (
    RayAuthError,
    RayClusterUnavailable,
    RayNotADashboard,
    RayNotFound,
    RayRequestError,
    RayRequestRefused,
)
from airflow_provider_ray.client.json_text import sanitized

if TYPE_CHECKING:
    from airflow_provider_ray.client.config import Endpoint

ERROR_TEXT_LIMIT = 64 * 1024
_LATER = frozenset({408, 425, 429})
_TITLE = re.compile(r"<title>\s*(\S[^<]{0,200})</title>", re.IGNORECASE)
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


async def read_reason(response: aiohttp.ClientResponse) -> str:
    """The beginning of an error's body, as much of it as arrives in time; the status is known without it."""
    text = b""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(pacing.REASON_SECONDS):
            async for piece in response.content.iter_any():
                text += piece
                if len(text) > ERROR_TEXT_LIMIT:
                    break
    # It becomes part of an error, and that of an event or a log. Some gateways repeat the request.
    said: str = without_secrets(sanitized(text.decode("utf-8", "replace")))
    for secret in sorted(header_secrets(response.request_info.headers), key=len, reverse=True):
        said = said.replace(secret, HIDDEN)
    return said


def refusal(name: str, status: int, text: str, endpoint: Endpoint) -> RayRequestError:
    """The error for an answer that is neither a success nor a redirect."""
    said = _reason(text)
    if status in (401, 403):
        return RayAuthError(name, f"{status}, {endpoint.advice(status)} ({said})", status)
    if status == 404:
        return RayNotFound(name, f"404: {said}", status)
    meant = (_wrapped(text) if status == 500 else None) or status
    # Ray's 501 says that Serve is not installed.
    if meant in _LATER or (meant >= 500 and meant != 501):
        return RayClusterUnavailable(name, f"{status}: {said}", status)
    refused = RayRequestRefused(name, f"{status}: {said}", status)
    # How nginx rejects a client certificate that is no longer valid.
    refused.about_credentials = status == 400 and "SSL certificate" in text
    return refused


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


def network_fault(name: str, error: aiohttp.ClientError | OSError) -> RayRequestError:
    """The error for a request without a proper answer."""
    if isinstance(error, aiohttp.ClientSSLError):
        untrusted = isinstance(error, aiohttp.ClientConnectorCertificateError)
        advice = "set ca_cert in the connection to the CA that signed it" if untrusted else "is it an https port?"
        refused = RayRequestRefused(name, f"TLS: {error}; {advice}")
        refused.about_credentials = True
        return refused
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return RayClusterUnavailable(name, f"no connection: {error}", never_sent=True)
    if isinstance(error, TimeoutError):
        return RayClusterUnavailable(name, f"no answer in time ({error or 'timeout'})")
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL):
        return RayNotADashboard(name, f"the address or the answer is not HTTP: {error}")
    # A server that misses a client certificate hangs up without a word (TLS 1.3), or resets the connection.
    reset = isinstance(error, aiohttp.ServerDisconnectedError) or getattr(error, "errno", None) == errno.ECONNRESET
    has_hung_up = (reset or isinstance(error.__cause__ or error, ssl.SSLError)) and " https:" in name
    advice = "; does it demand a client certificate (client_cert)?" if has_hung_up else ""
    away = RayClusterUnavailable(name, f"{type(error).__name__}: {error}{advice}")
    away.about_credentials = has_hung_up
    return away


def _reason(text: str) -> str:
    """The title of a page, else the last line with words: Ray answers with an entire server traceback, or two."""
    if title := _TITLE.search(text):
        return title[1]
    lines = [line.strip() for line in text.splitlines() if any(character.isalnum() for character in line)]
    return lines[-1][:500] if lines else "no reason given"
