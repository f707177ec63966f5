"""What a cluster has and how much of it is free; what it does not report is unknown, and unknown is never free."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.models import JobDetails, Node, has_living_head
from airflow_provider_ray.client.errors import RayAnswerTooLarge, RayNotADashboard, RayRequestError
from airflow_provider_ray.client.fault_words import MANY_RECORDS, in_words
from airflow_provider_ray.client.states import PENDING, is_terminal

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.cluster import Cluster
    from airflow_provider_ray.client.api.jobs import Jobs

T = TypeVar("T")


# A number that is finite and fits into 64 bits; a line with another one is not known.
_AMOUNT = r"(-?\d{1,18}(?:\.\d+)?(?:e[+-]?\d\d)?)(B|[KMGT]iB)?"
_USAGE = re.compile(rf" {_AMOUNT}/{_AMOUNT} (.+?)(?: \({_AMOUNT} used of {_AMOUNT} reserved in placement groups\))?")
_DEMAND = re.compile(r" .*?: (\d{1,12})\+ pending ")
_UNITS = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
# Ray writes memory with two decimals, which is off by half a percent at most.
_ROUNDING = 0.005
RESOURCES_KNOWN = 1000
NAME_LENGTH = 256
# Ray's own precision; sums of floats have less.
_DECIMALS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What ``GET /api/cluster_status?format=1`` reports, the text of autoscaler v1 and v2 (Ray 2.49-2.60).

    Resources by their true names; CPU and GPU in numbers, memory and object_store_memory in bytes (rounded by Ray).

    :param used: what is not available to others: in use, or reserved by a placement group.
    :param total: what the autoscaler knows about.
    :param pending_demands: tasks, actors and placement groups that are waiting for resources; "1+" counts as 1.
    """

    used: Mapping[str, float]
    total: Mapping[str, float]
    pending_demands: int

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Build the value from the text; None when it has no usage, as in the first seconds of a head."""
        sections = _sections(text)
        rows = [row for line in sections.get("Total Usage:", ()) if (row := _USAGE.fullmatch(line))]
        # In Ray 2.49 it is "Total Demands:".
        demands = sections.get("Pending Demands:", sections.get("Total Demands:"))
        if not rows or demands is None:
            return None
        counts = [int(found[1]) for line in demands if (found := _DEMAND.match(line))]
        return cls(
            used={row[5]: _used(row) for row in rows},
            total={row[5]: _amount(row, 3) for row in rows},
            pending_demands=sum(counts),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a cluster has and does; None is unknown.

    Resources by their true names; CPU and GPU in numbers, memory and object_store_memory in bytes. Ray's own
    markers (``node:...``) are left out.

    :param ray_version: version of Ray on the head.
    :param python_version: version of Python on the head.
    :param session_name: identifies a cluster; changes when its head restarts without its records.
    :param head_alive: whether the head node takes jobs; a dashboard may outlive it.
    :param nodes: nodes that are alive.
    :param total: sum over the nodes that are alive.
    :param free: of ``total``, what is neither used nor reserved; a resource that is not in it is unknown. All zero
        when the head is not alive, since no job can use it.
    :param pending_demands: tasks, actors and placement groups that are waiting for resources.
    :param running_jobs: submissions that have started and not ended; drivers outside of the Jobs API do not count.
    :param pending_jobs: submissions that have not started.
    :param unknown: why something is unknown, in our own words: by ``python_version``, ``usage`` (``free`` and
        ``pending_demands``) and ``jobs`` (``running_jobs`` and ``pending_jobs``), without those that are known.
    """

    ray_version: str
    python_version: str | None
    session_name: str | None
    head_alive: bool
    nodes: int
    total: Mapping[str, float]
    free: Mapping[str, float] | None
    pending_demands: int | None
    running_jobs: int | None
    pending_jobs: int | None
    unknown: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; unknown is null."""
        return asdict(self)


async def read_capacity(cluster: Cluster, submissions: Jobs) -> Capacity:
    """Request all of it from a cluster at the same time.

    :param cluster: requests about the cluster itself.
    :param submissions: requests about its jobs.
    :raises RayRequestError: when it does not report its version or its nodes; everything else may be unknown.
    """
    unknown: dict[str, str] = {}
    try:
        async with asyncio.TaskGroup() as asking:
            version = asking.create_task(cluster.version())
            nodes = asking.create_task(_second_to(version, cluster.nodes()))
            python_version = asking.create_task(_if_told(cluster.python_version(), "python_version", unknown))
            status = asking.create_task(_if_told(cluster.status(), "usage", unknown))
            jobs = asking.create_task(_if_told(submissions.active(), "jobs", unknown, MANY_RECORDS))
    except BaseExceptionGroup as faults:
        raise faults.exceptions[0] from None
    head_alive = has_living_head(nodes.result())
    if len(total := total_of(nodes.result())) > RESOURCES_KNOWN or any(len(name) > NAME_LENGTH for name in total):
        # They become part of an event and of an XCom.
        got = f"reports {len(total)} resources"
        expected = f"at most {RESOURCES_KNOWN}, with names of at most {NAME_LENGTH} characters"
        raise RayNotADashboard(cluster.url, f"{got}; expected {expected}")
    usage = Usage.from_text(status.result() or "")
    if usage is None:
        unknown.setdefault("usage", "Ray has not reported it yet")
    running, pending = (None, None) if jobs.result() is None else count_jobs(jobs.result() or ())
    return Capacity(
        ray_version=version.result().ray_version,
        python_version=python_version.result(),
        session_name=version.result().session_name,
        head_alive=head_alive,
        nodes=sum(node.is_alive for node in nodes.result()),
        total=total,
        free=free_of(total, usage) if head_alive else dict.fromkeys(total, 0.0),
        pending_demands=None if usage is None else usage.pending_demands,
        running_jobs=running,
        pending_jobs=pending,
        unknown=unknown,
    )


async def _second_to(version: Awaitable[object], asking: Awaitable[T]) -> T:
    """An answer, or the fault instead; a fault of the version comes first, as it shows whether this is Ray at all."""
    try:
        return await asking
    except RayRequestError:
        await version
        raise


async def _if_told(asking: Awaitable[T], what: str, unknown: dict[str, str], hint: str | None = None) -> T | None:
    """An answer that is not needed; without one, the reason becomes part of what is unknown.

    :param hint: what it points to when the answer is late or too large.
    """
    try:
        async with asyncio.timeout(pacing.DETAIL_SECONDS):
            return await asking
    except TimeoutError:
        unknown[what] = "; ".join(filter(None, (f"no response within {pacing.DETAIL_SECONDS:g} s", hint)))
    except RayRequestError as error:
        log.debug("Unknown %s: %s", what, error)
        is_hinted = isinstance(error, RayAnswerTooLarge)
        unknown[what] = "; ".join(filter(None, (in_words(error), hint if is_hinted else None)))
    return None


def _sections(text: str) -> Mapping[str, Sequence[str]]:
    """Indented lines below each heading."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(" "):
            lines.append(line)
        else:
            lines = sections.setdefault(line, [])
    return sections


def _amount(row: re.Match[str], group: int) -> float:
    return float(row[group] or 0) * _UNITS[row[group + 1]]


def _used(row: re.Match[str]) -> float:
    """Ray counts only what is used of a placement group, but the rest of it is reserved as well."""
    return max(_amount(row, 1) - _amount(row, 6) + _amount(row, 8), 0.0)


def total_of(nodes: Sequence[Node]) -> Mapping[str, float]:
    """Resources of the nodes that are alive, without Ray's own markers (``node:...``)."""
    totals: dict[str, float] = defaultdict(float)
    for node in nodes:
        for name, amount in (node.resources_total or {}).items() if node.is_alive else ():
            totals[name] += amount
    return {name: round(totals[name], _DECIMALS) for name in sorted(totals) if not name.startswith("node:")}


def free_of(total: Mapping[str, float], usage: Usage | None) -> Mapping[str, float] | None:
    """How much of the nodes' resources is certainly free; None when nothing is known about their usage."""
    if usage is None:
        return None
    return {
        name: round(max(_reported(whole, usage.total[name]) - usage.used[name], 0.0), _DECIMALS)
        for name, whole in total.items()
        if name in usage.used
    }


def _reported(whole: float, told: float) -> float:
    """What the usage covers: a node that it does not know about yet may be in use."""
    return told if told < whole * (1 - _ROUNDING) else whole


def count_jobs(jobs: Sequence[JobDetails]) -> tuple[int, int]:
    """How many submissions have started and not ended, and how many have not started."""
    active = [job for job in jobs if job.submission_id and not is_terminal(job.status)]
    pending = sum(job.status == PENDING for job in active)
    return len(active) - pending, pending
