"""Run all benchmarks, or those named on the command line, and write out/bench/<name>.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import fan_out, imports, processing, slots, submission, triggerer, waits

ALL: dict[str, Callable[[], dict[str, Any]]] = {
    "imports": imports.measure,
    "submission": submission.measure,
    "slots": slots.measure,
    "waits": waits.measure,
    "processing": processing.measure,
    "fan_out": fan_out.measure,
    "triggerer": triggerer.measure,
}
OUTPUT = Path(__file__).resolve().parent.parent / "out" / "bench"


def main(names: list[str]) -> int:
    if unknown := sorted(set(names) - set(ALL)):
        print(f"unknown benchmarks: {unknown}; there are {sorted(ALL)}", file=sys.stderr)
        return 2
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for name in names or ALL:
        print(f"== {name}", flush=True)
        text = json.dumps(ALL[name](), indent=2)
        (OUTPUT / f"{name}.json").write_text(text + "\n")
        print(text, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
