"""The driver log, relayed line by line and counted in bytes."""

from __future__ import annotations

import asyncio
import codecs
import logging
from time import monotonic, time
from typing import TYPE_CHECKING, Protocol

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.retry import retrying
from airflow_provider_ray.client.errors import RayAnswerTooLarge, RayRequestError
from airflow_provider_ray.client.jobs.log_relay import Logger, Relay
from airflow_provider_ray.client.json_text import sanitized

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.api.ray_client import RayClient

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024
# A longer line is delivered in pieces, so that memory stays bounded.
LINE_LIMIT_BYTES = 64 * 1024
LAST_LINE_CHARACTERS = 1000


class Position(Protocol):
    """How much of a driver log was delivered, kept for a process that resumes, and whether the reader keeps up."""

    async def has_read(self, at_most: int) -> bool:
        """Wait for a while until the reader has read what this process has logged.

        :param at_most: bytes that may be left unread.
        :returns: whether it has.
        """

    async def find(self, submission_id: str) -> int:
        """Bytes of this job's log that have been delivered, 0 when nothing is known."""

    async def put(self, submission_id: str, delivered: int) -> None:
        """Store the number of bytes."""


class DriverLog:
    """Delivers each line of a driver log once, however often :meth:`deliver` is called.

    A fault while reading says nothing about the job: the next read makes up for it, and the last read is retried.
    Lines that arrive too fast are left out (:class:`~airflow_provider_ray.client.jobs.log_relay.Relay`), and so are all
    but the last lines after ``[ray] log_followed_bytes``. The task log notes both.

    :param client: the cluster.
    :param logger: gets the lines.
    :param position: stores the position after each read; None keeps it in memory only.
    """

    def __init__(self, client: RayClient, logger: Logger, position: Position | None = None) -> None:
        self.delivered = 0
        self._client = client
        self._logger = logger
        self._position = position
        self._marked: int | None = None
        self._relay: Relay | None = None
        self._next_read = 0.0
        self._within_line = False
        self._waited_for = 0.0
        self._keeps_up = True
        self._progress = b""
        self._next_progress = 0.0

    async def deliver(self, job: JobDetails, *, final: bool = False, within: float | None = None) -> None:
        """Deliver the new complete lines, unless the last read was only a moment ago or too many logs are being read.

        :param job: the job as last seen.
        :param final: the job has ended: wait up to five minutes for a turn to read, retry a read that fails for up to
            15 seconds, warn if it still fails, and also deliver a last line without a line break.
        :param within: seconds after which the read is cut short, None for no limit; the next one continues from there.
        """
        if job.driver_node_id is None or (monotonic() < self._next_read and not final):
            return
        relay = await self._open(job)
        if self._client.jobs.logs_are_busy and not final:
            return
        self._waited_for, self._keeps_up, started = 0.0, True, monotonic()
        try:
            try:
                limit = asyncio.timeout(None if within is None else max(within, 0))
                # One turn for all tries: a new turn would mean the end of the queue.
                async with limit, self._client.jobs.log_turn(pacing.LOG_TURN_SECONDS if final else 0):
                    await retrying(lambda: self._read(job, relay, final), pacing.LOG_FINAL_SECONDS if final else 0)
            except (RayRequestError, TimeoutError) as error:
                level = logging.WARNING if final else logging.DEBUG
                log.log(level, "The driver log cannot be read: %s", error)
            # The reader may catch up at the end with what it did not read in between.
            self._keeps_up = self._keeps_up or final
            # Before the position says that all of it has been shown.
            await self._let_reader_catch_up(at_most=0 if final else pacing.LOG_LITTLE_BYTES)
            if final and not self._keeps_up:
                log.warning(
                    "The driver log of Ray job %s may be incomplete: it was not read in time", job.submission_id
                )
        finally:
            read = monotonic()
            # Also when cancelled: a process that resumes must not show the same lines again.
            await self._mark(job)
            told = monotonic() - read + self._waited_for
            reading = read - started - self._waited_for
            self._next_read = monotonic() + max(reading / pacing.LOG_READING_SHARE, told / pacing.LOG_MARKING_SHARE)

    async def _open(self, job: JobDetails) -> Relay:
        if self._relay is None:
            if self._position is not None:
                self.delivered = self._marked = await self._position.find(str(job.submission_id))
            self._relay = Relay(self._logger, self._client.config.job_url(str(job.submission_id)), _age(job))
        return self._relay

    async def _mark(self, job: JobDetails) -> None:
        if self._position is None or self.delivered == self._marked:
            return
        try:
            async with asyncio.timeout(pacing.LOG_POSITION_SECONDS):
                await self._position.put(str(job.submission_id), self.delivered)
        except TimeoutError:
            log.debug("The position in the driver log has not been confirmed in time")
        self._marked = self.delivered

    async def _read(self, job: JobDetails, relay: Relay, final: bool) -> None:
        was_followed = self.delivered < pacing.LOG_FOLLOWED_BYTES
        relay.let_in()
        try:
            if was_followed:
                await self._follow(job, relay, final)
        finally:
            relay.flush()
        if self.delivered < pacing.LOG_FOLLOWED_BYTES:
            return
        if was_followed:
            relay.say(
                "Only the first %d bytes of the driver log are shown, and its last lines once the job has ended",
                self.delivered,
            )
        if final:
            for line in await _last_lines(self._client, job):
                relay.show(line, len(line))
            relay.flush()

    async def _follow(self, job: JobDetails, relay: Relay, final: bool) -> None:
        to_skip, rest = self.delivered, b""
        async with self._client.jobs.log(job) as stream:
            async for chunk in stream.iter_chunked(CHUNK_BYTES):
                fresh = chunk[to_skip:]
                to_skip -= len(chunk) - len(fresh)
                rest = await self._hand_over(relay, rest + fresh)
                if self.delivered >= pacing.LOG_FOLLOWED_BYTES:
                    return
        if final and rest:
            await self._hand_over(relay, rest + b"\n", missing=1)
        elif b"\r" in rest:
            self._show_progress(relay, rest)

    def _show_progress(self, relay: Relay, line: bytes) -> None:
        """Show the last state of an incomplete line that a progress bar rewrites; the line itself is still to come."""
        state = _visible(line)
        if state != self._progress and monotonic() >= self._next_progress:
            self._progress, self._next_progress = state, monotonic() + pacing.LOG_PROGRESS_SECONDS
            _show(relay, state)

    async def _hand_over(self, relay: Relay, text: bytes, missing: int = 0) -> bytes:
        """Show the complete lines and return the rest."""
        *lines, rest = text.split(b"\n")
        for number, line in enumerate(lines):
            if line or not self._within_line:
                _show(relay, line)
            self._within_line = False
            self.delivered += len(line) + 1
            if number % pacing.LOG_LINES_AT_ONCE == 0:
                await asyncio.sleep(0)
            await self._let_reader_catch_up(at_most=pacing.LOG_WINDOW_BYTES)
        self.delivered -= missing
        if len(rest) < LINE_LIMIT_BYTES:
            return rest
        piece = _whole_characters(rest)
        _show(relay, piece)
        self._within_line = True
        self.delivered += len(piece)
        return rest[len(piece) :]

    async def _let_reader_catch_up(self, *, at_most: int) -> None:
        """Wait while more bytes than that are unread of what was shown, here and by others."""
        if self._position is None or not self._keeps_up:
            return
        started = monotonic()
        self._keeps_up = await self._position.has_read(at_most)
        self._waited_for += monotonic() - started


def _age(job: JobDetails) -> float:
    """Seconds since the submission, up to the end of the job; 0 when the clocks differ too much."""
    end = time() if job.end_time_ms is None else job.end_time_ms / 1000
    return 0.0 if job.start_time_ms is None else max(end - job.start_time_ms / 1000, 0.0)


def _show(relay: Relay, line: bytes) -> None:
    relay.show(_visible(line).decode("utf-8", "replace"), len(line))


def _visible(line: bytes) -> bytes:
    """What a terminal finally shows of a line: a carriage return makes it start over, as in progress bars."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _whole_characters(text: bytes) -> bytes:
    """The bytes without an incomplete character at their end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(text)
    begun, _ = decoder.getstate()
    return text[: len(text) - len(begun)]


async def last_lines(client: RayClient, job: JobDetails) -> list[str]:
    """The last lines of a driver log, with long ones cut off; none when they cannot be read."""
    if job.driver_node_id is None:
        return []
    try:
        async with client.jobs.log_turn(pacing.LOG_FINAL_SECONDS):
            return await retrying(lambda: _last_lines(client, job), pacing.LOG_FINAL_SECONDS)
    except (RayRequestError, TimeoutError) as error:
        log.warning("The last lines of the driver log cannot be read: %s", error)
        return []


async def _last_lines(client: RayClient, job: JobDetails) -> list[str]:
    text = b""
    async with client.jobs.log(job, lines=pacing.LOG_LAST_LINES) as stream:
        async for chunk in stream.iter_chunked(CHUNK_BYTES):
            text = (text + chunk)[-LINE_LIMIT_BYTES:]
    lines = sanitized(text.decode("utf-8", "replace")).splitlines()
    return [line[:LAST_LINE_CHARACTERS] for line in lines[-pacing.LOG_LAST_LINES :]]


async def read_log(client: RayClient, submission_id: str) -> str:
    """The driver log so far; Ray's message when the driver has not started.

    :raises RayNotFound: when the cluster has no such job.
    :raises RayAnswerTooLarge: when the log is longer than ``[ray] log_followed_bytes``.
    """
    job = await client.jobs.get(submission_id)
    if job.driver_node_id is None:
        return job.message or ""
    text, most = bytearray(), pacing.LOG_FOLLOWED_BYTES
    async with client.jobs.log(job) as stream:
        async for chunk in stream.iter_chunked(CHUNK_BYTES):
            text += chunk
            if len(text) > most:
                limit = "the limit ([ray] log_followed_bytes)"
                raise RayAnswerTooLarge(f"driver log of Ray job {submission_id!r}", None, most, 200, limit)
    # A task may return it as its XCom.
    said: str = sanitized(text.decode("utf-8", "replace"))
    return said
