"""Addresses of host names, looked up so that a name server that hangs delays only the clusters with that name.

A look-up blocks a thread for as long as the system's resolver takes, which nothing can cancel. The threads of the event
loop, which aiohttp uses, are few and shared by everyone in the process: a handful of names that hang would take them
from all clusters and from everything else that runs there.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from math import inf
from threading import Lock
from time import monotonic
from typing import Any, TypeAlias

from aiohttp.abc import AbstractResolver, ResolveResult

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.threads import started

_Addresses: TypeAlias = Sequence[tuple[Any, ...]]
_Key: TypeAlias = tuple[str, int, socket.AddressFamily]


@dataclass(slots=True)
class _LookUp:
    """A look-up that is running, or has just ended.

    :param until: up to when its result may be used (monotonic).
    """

    addresses: Future[_Addresses]
    until: float = inf


_known: dict[_Key, _LookUp] = {}
_lock = Lock()


class Resolver(AbstractResolver):
    """Looks up each name in a thread of its own, and the same name only once at a time in the whole process.

    :param within: seconds after which a look-up counts as failed; its thread is left to end by itself.
    """

    def __init__(self, within: float) -> None:
        self._within = within

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses of a host.

        :raises OSError: when there are none, or not in time.
        """
        try:
            async with asyncio.timeout(self._within):
                found = await asyncio.wrap_future(_looked_up((host, port, family)))
        except TimeoutError as error:
            reason = f"no answer from the name server within {self._within:g} s"
            raise socket.gaierror(socket.EAI_AGAIN, reason) from error
        except UnicodeError as error:
            raise socket.gaierror(socket.EAI_NONAME, f"not a host name ({error})") from error
        return [_result(host, *each) for each in found]

    async def close(self) -> None:
        """Nothing to do: look-ups that are still running belong to everyone."""


def _looked_up(key: _Key) -> Future[_Addresses]:
    """The addresses of a name, looked up now unless a look-up is running, or has ended a moment ago."""
    host, port, family = key

    def look_up() -> _Addresses:
        lasts = 0.0
        try:
            found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            # Callers that have given up meanwhile find this result the next time, instead of starting over.
            lasts = pacing.NAME_SECONDS
            return found
        finally:
            with _lock:
                _known[key].until = monotonic() + lasts

    with _lock:
        if key not in _known or _known[key].until <= monotonic():
            _known[key] = _LookUp(started(look_up))
        return _known[key].addresses


def _result(host: str, family: int, _: int, proto: int, __: str, address: tuple[Any, ...]) -> ResolveResult:
    # Numeric, so nothing is looked up; the name of an address with a scope (fe80::1%eth0) keeps it.
    numeric, port = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=numeric, port=int(port), family=family, proto=proto, flags=flags)
