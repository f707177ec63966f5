"""The credentials of a client and the certificates that it trusts, and how both are replaced when they are rejected.

Tokens and certificates are rotated while jobs run. So rejected credentials are looked up again, in the connection and
in the files that it names, before anything is concluded from the rejection.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.errors import RayConfigError, RayError
from airflow_provider_ray.client.threads import in_own_thread

if TYPE_CHECKING:
    from airflow_provider_ray.client.config import ClusterConfig, Endpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """What a connection and its files held at some moment.

    :param config: the connection.
    :param tls: the settings made from both; None while a file cannot be used.
    :param files: digest of each file: a renewed file keeps its path.
    """

    config: ClusterConfig
    tls: ssl.SSLContext | bool | None = field(default=True, compare=False)
    files: Mapping[str, str] = field(default_factory=dict)


class Access:
    """What the connection of a cluster holds, looked up once for all of the cluster's servers.

    The address of the cluster never changes: what was begun there is not to be found anywhere else.

    :param config: the cluster.
    :param look_up: reads the connection again; None if only its files can have changed.
    """

    def __init__(self, config: ClusterConfig, look_up: Callable[[], Awaitable[ClusterConfig]] | None = None) -> None:
        self.held = Held(config)
        self.trouble = ""  # what came of the last look-up, for an error
        self._look_up = look_up
        self._is_open = False
        self._renewing: asyncio.Task[None] | None = None
        self._renewed_at = -inf

    async def open(self, *, accepted: bool) -> None:
        """Read the files, once.

        :param accepted: the credentials have worked before, so files that cannot be used are about to be replaced.
        :raises RayConfigError: naming a file that cannot be used.
        """
        if self._is_open:
            return
        try:
            self.held = await _read(self.held.config)
        except RayConfigError:
            if not accepted:
                raise
            self.held = replace(self.held, tls=None)
        self._is_open = True

    async def look_up_again(self) -> None:
        """Read the connection and its files, unless that was done a moment ago.

        All who ask at about the same time share it, and giving up does not break it off for the others.
        """
        is_old = monotonic() - self._renewed_at >= pacing.LOOK_UP_SECONDS
        if self._renewing is None or (self._renewing.done() and is_old):
            self._renewing = asyncio.create_task(self._renew())
        await asyncio.shield(self._renewing)

    async def close(self) -> None:
        """Stop looking up."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)

    async def _renew(self) -> None:
        url = self.held.config.url
        if monotonic() - self._renewed_at > pacing.REJECTION_SECONDS:
            log.info("%s rejects the credentials; looking up the connection and its files again", url)
        try:
            found = await _in_time(self._read_again())
        except Exception as error:
            # A secrets backend may raise anything, and a file may be missing for a moment while it is replaced.
            said = str(error) if isinstance(error, RayError) else type(error).__name__
            self.trouble = f"without success ({said})"
        else:
            self._take(found)
        finally:
            self._renewed_at = monotonic()

    async def _read_again(self) -> Held:
        return await _read(self.held.config if self._look_up is None else await self._look_up())

    def _take(self, found: Held) -> None:
        if found.config.url != self.held.config.url:
            self.trouble = f"and now leads to another cluster, {found.config.url}, where nothing is sent"
            return
        self.trouble = "and holds no other credentials"
        if found != self.held:
            self.held = found


class Shown:
    """What one of a cluster's servers is shown, and what is trusted about it.

    Only a rejection by this server replaces it, only by something else for this server, and not for good as long as
    that does not work: a server may refuse a request for reasons of its own, or get new credentials later than the
    connection.

    :param access: what the connection holds.
    :param endpoint: picks the server from it.
    """

    def __init__(self, access: Access, endpoint: Callable[[ClusterConfig], Endpoint]) -> None:
        self.held = access.held
        self.version = 0  # increases when other credentials come into use
        self.result = ""  # what came of the last rejection, for an error
        self._access, self._endpoint = access, endpoint
        self._worked = self.held  # before anything has, what the client began with
        self._told: Held | None = None

    @property
    def endpoint(self) -> Endpoint:
        """The server, with the credentials in use."""
        return self._endpoint(self.held.config)

    async def open(self, *, accepted: bool) -> None:
        """See :meth:`Access.open`."""
        await self._access.open(accepted=accepted)
        self.held = self._worked = self._access.held

    def has_worked(self, version: int) -> None:
        """Note that the server accepts the credentials in use.

        :param version: that of the accepted ones.
        """
        if version == self.version:
            self._worked = self.held

    async def is_renewed(self, version: int, *, by_new_ones: bool = False) -> bool:
        """Whether other credentials are in use by now than those that were rejected.

        They are those that the connection holds, or, if these are the rejected ones, those that worked before.

        :param version: that of the rejected credentials.
        :param by_new_ones: neither by those that worked before, nor by the same ones for another address.
        """
        if version == self.version:
            await self._access.look_up_again()
        if version == self.version:
            self._choose(by_new_ones)
        return version != self.version

    def _choose(self, by_new_ones: bool) -> None:
        newest, worked = self._access.held, self._worked
        if self._is_other(newest, even_if_moved=not by_new_ones):
            self._use(newest, "the connection has changed, and what it holds now is used")
            if newest is not self._told:
                self._told = newest
                log.info("The connection to %s has changed; what it holds now is used", newest.config.url)
        elif not by_new_ones and self._is_other(worked) and self._has_same_address(worked):
            self._use(worked, "what the connection holds now is rejected, so what worked before is used again")
        else:
            self.result = f"the connection was looked up again {self._access.trouble}"

    def _use(self, held: Held, result: str) -> None:
        self.held, self.result = held, result
        self.version += 1

    def _is_other(self, held: Held, *, even_if_moved: bool = True) -> bool:
        """Whether the server would be shown something else, or something else be trusted about it.

        :param even_if_moved: another address alone makes the difference.
        """
        (endpoint, tls), used = self._of_server(held), self._of_server(self.held)
        return (endpoint if even_if_moved else replace(endpoint, prefix=used[0].prefix), tls) != used

    def _of_server(self, held: Held) -> tuple[Endpoint, object]:
        endpoint = self._endpoint(held.config)
        return endpoint, (held.config.verify, held.files) if endpoint.prefix.startswith("https:") else None

    def _has_same_address(self, held: Held) -> bool:
        return self._endpoint(held.config).prefix == self.endpoint.prefix


async def _in_time(reading: Coroutine[Any, Any, Held]) -> Held:
    """The result, unless it takes too long: a secrets backend that hangs must not hold up all waits on a cluster."""
    task = asyncio.create_task(reading)
    try:
        # Not a timeout around it, which would wait for the task to end: what hangs may ignore its cancellation.
        await asyncio.wait([task], timeout=pacing.LOOK_UP_LIMIT_SECONDS)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()


async def _read(config: ClusterConfig) -> Held:
    tls, files = await in_own_thread(partial(_read_files, config))
    return Held(config, tls, files)


def _read_files(config: ClusterConfig) -> tuple[ssl.SSLContext | bool, dict[str, str]]:
    """TLS settings, with a digest of each file that they come from: a renewed file keeps its path."""
    # Loading the system's CAs takes a while, so not for plain HTTP.
    if not any(url and url.startswith("https:") for url in (config.url, config.serve_url)):
        return True, {}
    ca_file = config.verify if isinstance(config.verify, str) else None
    system = ssl.get_default_verify_paths()
    paths = (ca_file or system.cafile, config.client_cert, config.client_key)
    # Read first: if a file changes meanwhile, the next look finds it changed.
    files = {path: _digest(path) for path in paths if path}
    return _context(config, ca_file), files


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        # Loading it says what is wrong.
        return ""


def _context(config: ClusterConfig, ca_file: str | None) -> ssl.SSLContext:
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
