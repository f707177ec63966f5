"""When a cluster is healthy: the one definition for choosing, the sensor, planning, the command line and the page.

A healthy cluster reports its version (so it is Ray and accepts our credentials), lists its nodes, and has a head node
that is alive. Nothing else is considered: its usage, its jobs, or Serve may be unknown, each for its own reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_ray.client.api.models import ClusterVersion, Node, has_living_head
from airflow_provider_ray.client.errors import RayClusterUnavailable, RayError

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.capacity import Capacity

E = TypeVar("E", bound=Exception)

# A dashboard may outlive the head node, but a cluster without a head node takes no jobs.
HEAD_DEAD = "its head node is dead"


def why_unhealthy(
    version: ClusterVersion | E | None, nodes: Sequence[Node] | E | None
) -> E | RayClusterUnavailable | None:
    """Why a cluster is unhealthy; None when it is healthy, or when what is known so far gives no reason.

    :param version: its version, or the error that came instead; None before the first answer.
    :param nodes: the same for its nodes.
    """
    if isinstance(version, Exception):
        return version
    if isinstance(nodes, Exception):
        return nodes
    return None if nodes is None else _why_headless(has_living_head(nodes))


def healthy_or_fault(answer: Capacity | RayError) -> Capacity | RayError:
    """The same for a cluster whose capacity was requested, which includes version and nodes.

    :param answer: the capacity, or the error that came instead.
    :returns: the capacity of a healthy cluster, or why it is unhealthy.
    """
    return answer if isinstance(answer, RayError) else _why_headless(answer.head_alive) or answer


def _why_headless(head_alive: bool) -> RayClusterUnavailable | None:
    return None if head_alive else RayClusterUnavailable.from_message(HEAD_DEAD)
