"""The text of ``/api/cluster_status?format=1``, written as Ray's ``format_info_string`` writes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tests.fake_dashboard.state import FakeCluster

NOT_YET = "No cluster status. It may take a few seconds for the Ray internal services to start up."
UNITS = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
RULE = "-" * 63


def status_text(cluster: FakeCluster) -> str:
    """What is used and what is waited for: by jobs that are there, and as a test has set it."""
    if not cluster.has_status:
        return NOT_YET
    old = cluster.is_older_than(2, 60)
    constraints, demands = ("Total Constraints:", "Total Demands:") if old else ("From request_resources:", "")
    return "\n".join(
        [
            "======== Autoscaler status: 2026-11-20 12:00:00.000000 ========",
            *("Node status", RULE, "Active:", " 1 node_0", "Pending:", " (no pending nodes)"),
            *("Recent failures:", " (no failures)", "", "Resources", RULE, "Total Usage:"),
            *_usage(cluster),
            "",
            *(constraints, " (no request_resources() constraints)" if old else " (none)"),
            demands or "Pending Demands:",
            *(list(_demands(cluster)) or [" (no resource demands)"]),
        ]
    )


def _usage(cluster: FakeCluster) -> Iterator[str]:
    used = Counter(cluster.used)
    for job in cluster.jobs.values():
        if job.status == "RUNNING":
            used.update(_wanted(job.body))
    total = Counter[str]()
    for node in cluster.nodes:
        if node["state"] == "ALIVE":
            total.update(node["resources_total"])
    for name, whole in sorted(total.items()):
        if "node:" in name or name.startswith("accelerator_type:"):
            continue
        form = _memory if name in ("memory", "object_store_memory") else str
        inside, reserved = cluster.reserved.get(name, (0.0, 0.0))
        line = f" {form(float(used[name] + inside))}/{form(whole)} {name}"
        if reserved:
            line += f" ({form(inside)} used of {form(reserved)} reserved in placement groups)"
        yield line


def _demands(cluster: FakeCluster) -> Iterator[str]:
    waiting = [str(_wanted(job.body)) for job in cluster.jobs.values() if job.status == "PENDING" and _wanted(job.body)]
    for shape, count in Counter(waiting).items():
        yield f" {shape}: {count}+ pending tasks/actors"
    yield from cluster.demands


def _wanted(body: Mapping[str, Any]) -> dict[str, float]:
    """What a job reserves for its driver."""
    named = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    amounts = {name: float(body.get(f"entrypoint_{key}") or 0) for name, key in named.items()}
    return {name: amount for name, amount in {**amounts, **body.get("entrypoint_resources", {})}.items() if amount}


def _memory(amount: float) -> str:
    unit = next((unit for unit, size in UNITS.items() if amount >= size), None)
    return f"{amount / UNITS[unit]:.2f}{unit}" if unit else f"{int(amount)}B"
