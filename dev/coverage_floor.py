"""Print the coverage that the last test run measured, and fail when a module of the package has too little.

Run as ``python -m dev.coverage_floor``. A total would not do: well-tested modules would make up for one without tests.
"""

from __future__ import annotations

import sys
from os.path import relpath

from coverage import Coverage

FLOOR_PERCENT = 85.0


def percentages(measured: Coverage) -> dict[str, float]:
    """The share of each module's statements that were executed, in percent, by the module's path."""
    found = {}
    for path in measured.get_data().measured_files():
        _, statements, _, missing, _ = measured.analysis2(path)
        found[relpath(path)] = 100 - 100 * len(missing) / max(1, len(statements))
    return found


def main() -> int:
    """Print the report and return the exit code: 0, or 1 when a module is below the floor."""
    measured = Coverage()
    measured.load()
    measured.report()
    below = {path: share for path, share in percentages(measured).items() if share < FLOOR_PERCENT}
    for path, share in sorted(below.items()):
        print(f"{path}: {share:.1f} % of its statements are tested, expected at least {FLOOR_PERCENT:g} %")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
