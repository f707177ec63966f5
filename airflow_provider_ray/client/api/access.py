"""The credentials of a client and the certificates that it trusts, and how both are replaced when they are rejected.

Tokens and certificates are rotated while jobs run. So rejected credentials are looked up again, in the connection and
in the files that it names, before anything is concluded from the rejection.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.errors import RayConfigError, RayError
from airflow_provider_ray.client.threads import in_own_thread

if TYPE_CHECKING:
    from airflow_provider_ray.client.config import ClusterConfig

log = logging.getLogger(__name__)


class Access:
    """The configuration of a cluster that is in use now, with the TLS settings made from it.

    :param config: the cluster.
    :param look_up: reads the connection again; None if only its files can have changed.
    """

    def __init__(self, config: ClusterConfig, look_up: Callable[[], Awaitable[ClusterConfig]] | None = None) -> None:
        self.config = config
        self.version = 0  # increases when other credentials come into use
        self.tls: ssl.SSLContext | bool | None = True  # None while its files cannot be used
        self._look_up = look_up
        self._files: Mapping[str, str] = {}
        self._is_open = False
        self._renewing: asyncio.Task[None] | None = None
        self._renewed_at = -inf
        self._trouble = "and holds no other credentials"

    async def open(self, *, accepted: bool) -> None:
        """Read the files, once.

        :param accepted: the credentials have worked before, so files that cannot be used are about to be replaced.
        :raises RayConfigError: naming a file that cannot be used.
        """
        if self._is_open:
            return
        try:
            self.tls, self._files = await in_own_thread(partial(_read, self.config))
        except RayConfigError:
            if not accepted:
                raise
            self.tls = None
        self._is_open = True

    async def is_renewed(self, version: int) -> bool:
        """Whether other credentials are in use by now than those that were rejected.

        They are looked up again, together by all who ask at about the same time.

        :param version: that of the rejected credentials.
        """
        is_old = monotonic() - self._renewed_at >= pacing.LOOK_UP_SECONDS
        if version == self.version and (self._renewing is None or (self._renewing.done() and is_old)):
            self._renewing = asyncio.create_task(self._renew())
        if version == self.version and self._renewing is not None:
            # Giving up must not break off the look-up for the others.
            await asyncio.shield(self._renewing)
        return version != self.version

    @property
    def result(self) -> str:
        """What came of the last look-up, for an error."""
        return f"the connection was looked up again {self._trouble}"

    async def close(self) -> None:
        """Stop looking up."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)

    async def _renew(self) -> None:
        if monotonic() - self._renewed_at > pacing.REJECTION_SECONDS:
            log.info("%s rejects the credentials; looking up the connection and its files again", self.config.url)
        try:
            config = self.config if self._look_up is None else await self._look_up()
            tls, files = await in_own_thread(partial(_read, config))
        except Exception as error:
            # A secrets backend may raise anything, and a file may be missing for a moment while it is replaced.
            said = str(error) if isinstance(error, RayError) else type(error).__name__
            self._trouble = f"without success ({said})"
        else:
            self._trouble = "and holds no other credentials"
            if (config, files) != (self.config, self._files):
                self.config, self.tls, self._files = config, tls, files
                self.version += 1
                log.info("The connection to %s has changed; using the new values", config.url)
        finally:
            self._renewed_at = monotonic()


def _read(config: ClusterConfig) -> tuple[ssl.SSLContext | bool, dict[str, str]]:
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
