"""The driver's log, delivered line by line and counted in bytes."""

from __future__ import annotations

import asyncio
import codecs
import logging
from collections import deque
from collections.abc import Callable
from time import monotonic

from airflow_provider_ray.client.errors import RayRequestError
from airflow_provider_ray.client.models import JobDetails
from airflow_provider_ray.client.ray_client import RayClient
from airflow_provider_ray.client.retry import retrying

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024
# A longer line is delivered in pieces, so that memory stays bounded.
LINE_LIMIT_BYTES = 64 * 1024
TAIL_LINES = 20
# Ray has no offset: each read passes over what was delivered. Reading takes at most this share of the time.
READING_SHARE = 0.05
FINAL_BUDGET_SECONDS = 15.0


class DriverLog:
    """Hands over each line of a driver's log once, however often it is asked.

    A fault while reading is made up for by the next read, and the last read is repeated: it says nothing about the
    job.

    :param client: the cluster.
    :param emit: takes a line, without its line break; None keeps the tail only.
    """

    def __init__(self, client: RayClient, emit: Callable[[str], None] | None) -> None:
        self.delivered = 0
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._client = client
        self._emit = emit
        self._next_read = 0.0
        self._within_line = False

    async def deliver(
        self, job: JobDetails, *, final: bool = False, lines: int = -1, within: float | None = None
    ) -> None:
        """Hand over the complete lines that are new.

        :param final: also a last line without a line break.
        :param lines: look at that many of the last lines only, -1 for all.
        :param within: seconds after which the read is broken off; the next one goes on.
        """
        if job.driver_node_id is None or (monotonic() < self._next_read and not final):
            return
        started = monotonic()
        try:
            budget = FINAL_BUDGET_SECONDS if final else 0
            async with asyncio.timeout(None if within is None else max(within, 0)):
                await retrying(lambda: self._read(job, final, lines), budget)
        except (RayRequestError, TimeoutError) as error:
            level = logging.WARNING if final else logging.DEBUG
            log.log(level, "The driver's log cannot be read now: %s", error)
        self._next_read = monotonic() + (monotonic() - started) / READING_SHARE

    async def _read(self, job: JobDetails, final: bool, lines: int) -> None:
        to_skip, rest = self.delivered, b""
        async with self._client.jobs.log(job, lines=lines) as stream:
            async for chunk in stream.iter_chunked(CHUNK_BYTES):
                fresh = chunk[to_skip:]
                to_skip -= len(chunk) - len(fresh)
                rest = self._hand_over(rest + fresh)
                await asyncio.sleep(0)
        if final and rest:
            self._hand_over(rest + b"\n", missing=1)

    def _hand_over(self, text: bytes, missing: int = 0) -> bytes:
        """Emit the complete lines of a text and return what is left of it."""
        *lines, rest = text.split(b"\n")
        for line in lines:
            if line or not self._within_line:
                self._emit_line(line)
            self._within_line = False
            self.delivered += len(line) + 1
        self.delivered -= missing
        if len(rest) < LINE_LIMIT_BYTES:
            return rest
        piece = _whole_characters(rest)
        self._emit_line(piece)
        self._within_line = True
        self.delivered += len(piece)
        return rest[len(piece) :]

    def _emit_line(self, line: bytes) -> None:
        text = line.rstrip(b"\r").decode("utf-8", "replace")
        self.tail.append(text[:1000])
        if self._emit is not None:
            self._emit(text)


def _whole_characters(text: bytes) -> bytes:
    """A text without the beginning of a character at its end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(text)
    begun, _ = decoder.getstate()
    return text[: len(text) - len(begun)]


async def read_log(client: RayClient, submission_id: str) -> str:
    """The driver's log so far; Ray's message when the driver has not started.

    :raises RayNotFound: when the cluster has no such job.
    """
    job = await client.jobs.get(submission_id)
    if job.driver_node_id is None:
        return job.message or ""
    async with client.jobs.log(job) as stream:
        return (await stream.read()).decode("utf-8", "replace")
