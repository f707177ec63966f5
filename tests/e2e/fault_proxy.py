"""A TCP proxy on loopback, in front of a cluster's dashboard, that misbehaves when told to."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

REFUSED = "connection refused"
BLACK_HOLE = "black hole"
HALF_OPEN = "half-open connection"
REQUEST = re.compile(rb"(?:GET|POST|PUT|DELETE) [^ ]+ HTTP/1\.1\r\n")
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\nConnection: close\r\n\r\n502"
CHUNK_BYTES = 64 * 1024
LINGER_SECONDS = 5.0


@dataclass
class Fault:
    """What goes wrong at the moment.

    :param drop_requests: what clients send gets lost.
    :param drop_answers: what the dashboard sends gets lost.
    :param only: limits ``drop_requests`` to bytes that contain it.
    :param bad_share: share of the requests that are answered 502.
    :param replace: bytes in requests and what comes in their place.
    """

    drop_requests: bool = False
    drop_answers: bool = False
    only: bytes = b""
    bad_share: float = 0.0
    replace: tuple[bytes, bytes] = (b"", b"")


FAULTS = {
    BLACK_HOLE: Fault(drop_requests=True, drop_answers=True),
    HALF_OPEN: Fault(drop_answers=True),
}


class FaultProxy:
    """Passes bytes on, to a port of this host and back, as long as no fault is set.

    :param target: the port.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        # How often a fault has done something to somebody.
        self.hits = 0
        self._target = target
        self._fault = Fault()
        self._watch: tuple[bytes, Callable[[], bool]] | None = None
        self._random = random.Random(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        # Holds the port while nobody listens on it.
        self._guard = socket.socket()
        self._guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._guard.bind(("127.0.0.1", 0))
        self.port = self._guard.getsockname()[1]
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._guard.close()

    @contextmanager
    def refused(self) -> Iterator[None]:
        """Connections are cut and refused."""
        self._run(self._refuse())
        try:
            yield
        finally:
            self._run(self._listen())

    @contextmanager
    def faulty(self, fault: Fault) -> Iterator[None]:
        """Bytes get lost, or requests are answered by the proxy; all connections are cut in the end."""
        self._fault = fault
        try:
            yield
        finally:
            self._fault = Fault()
            self._run(self._cut())

    def fault(self, kind: str) -> AbstractContextManager[None]:
        """One of the faults by its name, as a context manager."""
        return self.refused() if kind == REFUSED else self.faulty(FAULTS[kind])

    def when(self, request: bytes, call: Callable[[], bool]) -> None:
        """Call something once when a request comes, which says whether the request is passed on."""
        self._watch = (request, call)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        for writer in self._writers:
            self.hits += 1
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._target)
        pair = {writer, back_writer}
        self._writers |= pair
        with suppress(OSError):
            await asyncio.gather(self._requests(reader, back_writer, writer), self._answers(back_reader, writer))
        for each in pair:
            each.transport.abort()
        self._writers -= pair

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        linger = 0.0
        while chunk := await reader.read(CHUNK_BYTES):
            watch = self._watch
            if watch is not None and watch[0] in chunk:
                self._watch = None
                if not await asyncio.to_thread(watch[1]):
                    self.hits += 1
                    raise ConnectionAbortedError
                # The client may have given up meanwhile; the dashboard has to read the request all the same.
                linger = LINGER_SECONDS
            fault = self._fault
            if REQUEST.match(chunk) and self._random.random() < fault.bad_share:
                self.hits += 1
                back.write(BAD_GATEWAY)
                await back.drain()
                raise ConnectionAbortedError
            if fault.only in chunk and fault.drop_requests:
                self.hits += 1
                continue
            if fault.replace[0] and fault.replace[0] in chunk:
                self.hits += 1
                chunk = chunk.replace(*fault.replace)
            writer.write(chunk)
            await writer.drain()
        await asyncio.sleep(linger)
        raise ConnectionAbortedError

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            if self._fault.drop_answers:
                self.hits += 1
                continue
            writer.write(chunk)
            await writer.drain()
        raise ConnectionAbortedError
