"""The table of faults: what was done, what was expected, and what was seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEAD = """# Reliability

The fault suite (`make chaos`) injects faults into a real Airflow 3.3 and real Ray heads (2.60 and 2.49.2) and writes
this table. *Jobs* lists every job that the run submitted, with its last state.

Besides these faults, random histories of a task (`tests/unit/operators/test_histories.py`) are played against fake
clusters: deaths at every step, outages, cut and late submissions, kills, clears and wiped stores. No job may be left
active, and on one cluster no two may be active at the same time.

One fault cannot be prevented: if the process of a task is suspended for so long that Airflow starts a retry, which
resumes the job, and the process then continues, it is killed and stops that job. The retry notices that its job has
been stopped and submits another one ([ADR 31](adr/0031-the-cluster-is-the-memory-of-last-resort.md)). In deferrable
mode, no process of a task waits.

| Fault | Expected | Jobs | Task | Driver lines in the task log | Seconds |
|---|---|---|---|---|---|
"""


@dataclass
class Report:
    """Rows of the table, in the order in which the cases ended."""

    rows: list[str] = field(default_factory=list)

    @contextmanager
    def case(self, fault: str, expected: str) -> Iterator[Callable[..., None]]:
        """A case; the callable inside takes what was seen, and the row counts when the case did not fail.

        Its ``seconds`` are those of the block, unless it is told others.
        """
        started = time.monotonic()
        found: dict[str, Any] = {}
        yield found.update
        jobs, lines = ", ".join(found["jobs"]), _told(found.get("lines"))
        seconds = found.get("seconds", time.monotonic() - started)
        self.rows.append(f"| {fault} | {expected} | {jobs} | {found['state']} | {lines} | {seconds:.0f} |")

    def write(self, path: Path) -> None:
        """Write the table; rows of faults that were not played this time stay as they are."""
        before = path.read_text().removeprefix(HEAD).splitlines() if path.exists() else []
        rows = {row.split(" | ")[0]: row for row in [*before, *self.rows]}
        path.write_text(HEAD + "\n".join(sorted(rows.values())) + "\n")


def _told(lines: Sequence[str] | None) -> str:
    if lines is None:
        return "not checked"
    repeated = len(lines) - len(set(lines))
    return f"{len(set(lines))}, {repeated} repeated"
