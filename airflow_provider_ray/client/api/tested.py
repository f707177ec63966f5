"""Which releases of Ray this package was tested with."""

from __future__ import annotations

import logging
import re

OLDEST, NEWEST = (2, 49), (2, 60)
# A cluster may report anything, and something else each time.
_MOST_WARNINGS = 10

log = logging.getLogger(__name__)

_warned: set[tuple[int, ...]] = set()


def warn_if_untested(ray_version: str, url: str) -> None:
    """Log a warning, once per process, if a cluster runs a release that was never tested.

    :param ray_version: as the cluster reports it.
    :param url: address of the cluster.
    """
    numbers = re.match(r"(\d{1,9})\.(\d{1,9})", ray_version)
    release = tuple(map(int, numbers.groups())) if numbers else ()
    if OLDEST <= release <= NEWEST or release in _warned or len(_warned) >= _MOST_WARNINGS:
        return
    _warned.add(release)
    oldest, newest = (f"{major}.{minor}" for major, minor in (OLDEST, NEWEST))
    log.warning("Ray %.40r on %s: this package was tested with Ray %s to %s", ray_version, url, oldest, newest)
