"""When a cluster is healthy."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ray.client.api.capacity import Capacity
from airflow_provider_ray.client.api.models import ClusterVersion, Node
from airflow_provider_ray.client.clusters.health import healthy_or_fault, why_unhealthy
from airflow_provider_ray.client.errors import RayAuthError, RayClusterUnavailable, RayError

VERSION = ClusterVersion(ray_version="2.60.0", session_name=None)
REFUSED = RayAuthError("GET /api/version", "401", 401)
AWAY = RayClusterUnavailable("GET /api/v0/nodes", "no answer in time")
HEADLESS = "its head node is dead"


def node(*, head: bool, state: str = "ALIVE") -> Node:
    return Node(node_id="n", state=state, state_message=None, is_head_node=head, resources_total={})


def capacity(*, head_alive: bool, **unknown: str) -> Capacity:
    nothing: dict[str, Any] = dict.fromkeys(("free", "pending_demands", "running_jobs", "pending_jobs"))
    known: dict[str, Any] = {"ray_version": "2.60.0", "python_version": None, "session_name": None, "nodes": 1}
    return Capacity(head_alive=head_alive, total={}, unknown=unknown, **known, **nothing)


@pytest.mark.parametrize(
    ("version", "nodes", "reason"),
    [
        (VERSION, [node(head=True), node(head=False, state="DEAD")], None),
        (VERSION, [node(head=True, state="DEAD"), node(head=False)], HEADLESS),
        (VERSION, [node(head=False)], HEADLESS),
        (VERSION, [], HEADLESS),
        (VERSION, AWAY, str(AWAY)),
        (REFUSED, [node(head=True)], str(REFUSED)),
        (REFUSED, AWAY, str(REFUSED)),
        (REFUSED, None, str(REFUSED)),
        (TimeoutError("too late"), None, "too late"),
        (VERSION, None, None),
        (None, None, None),
    ],
)
def test_version_and_nodes_decide(version: Any, nodes: Any, reason: str | None) -> None:
    fault = why_unhealthy(version, nodes)
    assert (fault and str(fault)) == reason


def test_a_cluster_whose_head_is_dead_may_come_back() -> None:
    fault = why_unhealthy(VERSION, [])
    assert isinstance(fault, RayError)
    assert fault.transient


def test_a_capacity_is_judged_by_its_head_alone() -> None:
    healthy = capacity(head_alive=True, jobs="no response within 5 s", usage="no response within 5 s")
    assert healthy_or_fault(healthy) is healthy
    assert str(healthy_or_fault(capacity(head_alive=False))) == HEADLESS
    assert healthy_or_fault(REFUSED) is REFUSED
