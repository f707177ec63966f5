"""What becomes of a line of a driver's log: at which level it is shown, and whether."""

from __future__ import annotations

import logging
import re
from collections import deque
from time import monotonic
from typing import Any, Protocol

# A driver that writes faster than that for long would fill Airflow's log with what nobody reads.
LINES_PER_SECOND = 1000
BYTES_PER_SECOND = 1024 * 1024
BURST_SECONDS = 10
# What has gathered since the last read may be as much as that time allows, but not for longer.
GATHERED_SECONDS = 100
LAST_LINES = 20

# Airflow drops DEBUG where its own level is INFO, and a line must not get lost.
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
    """A logger of the standard library or one that takes the same call."""

    def log(self, level: int, event: str, /, *args: object) -> Any: ...


def level_of(line: str) -> int:
    """The level that a line names at its beginning, in one of the forms of Python's logging, Ray or loguru."""
    found = _LEVEL.match(_COLOUR.sub("", line[:300]))
    return LEVELS[found[1] or found[2]] if found else logging.INFO


class Relay:
    """Shows lines in a log; of those that come too fast only the last ones, and how many are missing.

    :param logger: where the lines go.
    :param where: where the whole log is, for the reader.
    :param seconds: how long the log has been growing.
    """

    def __init__(self, logger: Logger, where: str, seconds: float) -> None:
        self._logger = logger
        self._where = where
        self._lines: float = BURST_SECONDS * LINES_PER_SECOND
        self._bytes: float = BURST_SECONDS * BYTES_PER_SECOND
        self._filled = monotonic() - seconds
        self._held: deque[tuple[str, int]] = deque(maxlen=LAST_LINES)
        self._missing_lines = self._missing_bytes = 0

    def let_in(self) -> None:
        """Let new lines come, in proportion to the time since the last call."""
        seconds, self._filled = monotonic() - self._filled, monotonic()
        longest = min(max(seconds, BURST_SECONDS), GATHERED_SECONDS)
        self._lines = min(max(self._lines, 0) + seconds * LINES_PER_SECOND, longest * LINES_PER_SECOND)
        self._bytes = min(max(self._bytes, 0) + seconds * BYTES_PER_SECOND, longest * BYTES_PER_SECOND)

    def show(self, line: str, size: int) -> None:
        """Show a line, or hold it back.

        :param size: its length in bytes.
        """
        self._lines -= 1
        self._bytes -= size
        # Once a line has been held back, all that follow are, up to the next flush(): no holes within holes.
        if self._lines >= 0 and self._bytes >= 0 and not self._held:
            self._write(line)
            return
        if len(self._held) == LAST_LINES:
            self._missing_lines += 1
            self._missing_bytes += self._held[0][1]
        self._held.append((line, size))

    def flush(self) -> None:
        """Say what has been left out, and show the last lines."""
        if self._missing_lines:
            self.say(
                "%d lines (%d bytes) of the driver's log are left out here: more than %d lines or %d bytes a second",
                self._missing_lines,
                self._missing_bytes,
                LINES_PER_SECOND,
                BYTES_PER_SECOND,
            )
        for line, _ in self._held:
            self._write(line)
        self._held.clear()
        self._missing_lines = self._missing_bytes = 0

    def say(self, message: str, *args: object) -> None:
        """Warn about what is missing, and say where it is."""
        self._logger.log(logging.WARNING, f"{message}; the whole log: %s", *args, self._where)

    def _write(self, line: str) -> None:
        self._logger.log(level_of(line), "%s", line)
