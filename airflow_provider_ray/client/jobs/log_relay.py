"""Decides whether a line of the driver log is shown, and at which level."""

from __future__ import annotations

import logging
import re
from collections import deque
from time import monotonic
from typing import Any, Protocol

from airflow_provider_ray.client import pacing

# Airflow drops DEBUG lines when its own level is INFO, and no line may be lost.
LEVELS = {
    **dict.fromkeys(("DEBUG", "INFO", "D", "I"), logging.INFO),
    **dict.fromkeys(("WARNING", "WARN", "W"), logging.WARNING),
    **dict.fromkeys(("ERROR", "E"), logging.ERROR),
    **dict.fromkeys(("CRITICAL", "FATAL", "C", "F"), logging.CRITICAL),
}
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_LEVEL = re.compile(
    r"""
    (?:\([^)]{1,100}\)\s)?                                     # Ray's "(task pid=1) " in front of a worker's line
    [\[(]?
    (?:\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\S{0,12}[\s|-]*)?      # a time
    (?:[\w.]{1,100}\s-\s)?                                     # the logger, in "time - logger - LEVEL - message"
    [\[(]?
    (?:
        (DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)(?=[\s\]):|,-]|$)
        | ([DIWECF])(?=\s\d+\s\d+\])                           # Ray's C++: "[time E pid thread] message"
    )
    """,
    re.VERBOSE,
)


class Logger(Protocol):
    """A standard library logger, or one with a compatible ``log`` method."""

    def log(self, level: int, event: str, /, *args: object) -> Any:
        """Log a line."""


def level_of(line: str) -> int:
    """The level named at the start of a line, in a format of Python's logging, Ray or loguru."""
    found = _LEVEL.match(_COLOUR.sub("", line[:300]))
    return LEVELS[found[1] or found[2]] if found else logging.INFO


class Relay:
    """Writes lines to a log; when they arrive too fast, only the last ones and the number left out.

    :param logger: where the lines go.
    :param where: tells the reader where to find the complete log.
    :param seconds: how long the log has been growing.
    """

    def __init__(self, logger: Logger, where: str, seconds: float) -> None:
        self._logger = logger
        self._where = where
        self._lines: float = pacing.LOG_BURST_SECONDS * pacing.LOG_LINES_PER_SECOND
        self._bytes: float = pacing.LOG_BURST_SECONDS * pacing.LOG_BYTES_PER_SECOND
        self._filled = monotonic() - seconds
        self._held: deque[tuple[str, int]] = deque(maxlen=pacing.LOG_LAST_LINES)
        self._missing_lines = self._missing_bytes = 0

    def let_in(self) -> None:
        """Increase the allowance in proportion to the time since the last call."""
        seconds, self._filled = monotonic() - self._filled, monotonic()
        longest = min(max(seconds, pacing.LOG_BURST_SECONDS), pacing.LOG_GATHERED_SECONDS)
        lines, size = pacing.LOG_LINES_PER_SECOND, pacing.LOG_BYTES_PER_SECOND
        self._lines = min(max(self._lines, 0) + seconds * lines, longest * lines)
        self._bytes = min(max(self._bytes, 0) + seconds * size, longest * size)

    def show(self, line: str, size: int) -> None:
        """Show a line or hold it back.

        :param size: length of the line in bytes.
        """
        self._lines -= 1
        self._bytes -= size
        # Once a line is held back, all later ones are too, until the next flush(); this leaves one gap, not many.
        if self._lines >= 0 and self._bytes >= 0 and not self._held:
            self._write(line)
            return
        if len(self._held) == pacing.LOG_LAST_LINES:
            self._missing_lines += 1
            self._missing_bytes += self._held[0][1]
        self._held.append((line, size))

    def flush(self) -> None:
        """Report what was left out, and show the last lines."""
        if self._missing_lines:
            self.say(
                "%d lines (%d bytes) of the driver log omitted here: more than %d lines or %d bytes per second",
                self._missing_lines,
                self._missing_bytes,
                pacing.LOG_LINES_PER_SECOND,
                pacing.LOG_BYTES_PER_SECOND,
            )
        for line, _ in self._held:
            self._write(line)
        self._held.clear()
        self._missing_lines = self._missing_bytes = 0

    def say(self, message: str, *args: object) -> None:
        """Log a warning about missing lines and where to find them."""
        self._logger.log(logging.WARNING, "%s; full log: %s", message % args, self._where)

    def _write(self, line: str) -> None:
        self._logger.log(level_of(line), "%s", line)
