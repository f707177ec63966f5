"""The socket through which a triggerer's triggers log, as Airflow 3.3 sets it up."""

from __future__ import annotations

import asyncio
import codecs
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_ray.compat.triggerer import unread_bytes


class AirflowLog:
    """Both ends of the socket; ``read_slowly`` is the part of Airflow's supervisor."""

    def __init__(self) -> None:
        ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self.stream = os.fdopen(ours.detach(), "wb", buffering=0)
        # As the root logger's handler gets it.
        self.handler = logging.StreamHandler(codecs.lookup("utf-8").streamwriter(self.stream))
        self.received = b""

    def write(self, line: bytes) -> None:
        """Write a line as structlog does."""
        self.stream.write(line)

    @property
    def unread(self) -> int:
        return unread_bytes(self.stream)

    def read(self, size: int = 4096) -> None:
        try:
            self.received += self._theirs.recv(size)
        except BlockingIOError:
            return

    async def read_slowly(self, pause: float = 0.01) -> None:
        """Read 4096 bytes every now and then."""
        while True:
            self.read()
            await asyncio.sleep(pause)

    def close(self) -> None:
        self.stream.close()
        self._theirs.close()


@contextmanager
def installed() -> Iterator[AirflowLog]:
    """A log that the root logger writes to."""
    log, root = AirflowLog(), logging.getLogger()
    root.addHandler(log.handler)
    try:
        yield log
    finally:
        root.removeHandler(log.handler)
        log.close()
