"""The only place where states are spelled out (Ray 2.49-2.60: ``ray.job_submission.JobStatus``, Serve schema)."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

PENDING = "PENDING"
RUNNING = "RUNNING"
STOPPED = "STOPPED"
SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"

_TERMINAL = frozenset({STOPPED, SUCCEEDED, FAILED})
_ACTIVE = frozenset({PENDING, RUNNING})
_warned: set[str] = set()

APPLICATION_RUNNING = "RUNNING"
APPLICATION_DEPLOY_FAILED = "DEPLOY_FAILED"

NODE_ALIVE = "ALIVE"


def is_terminal(status: str) -> bool:
    """Whether a job with this status has ended; a status that this package does not know counts as active."""
    if status not in _TERMINAL | _ACTIVE and status not in _warned:
        _warned.add(status)
        log.warning("Unknown job status %r: treating it as active", status)
    return status in _TERMINAL
