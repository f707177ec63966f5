"""Whether a job that Ray calls RUNNING can still be running.

A job's record outlives its driver when the raylet of the driver's node has died while the dashboard lives on, and when
a head comes back with its records but without its processes (Ray 2.49-2.60). Only the node's state shows it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.models import JobDetails, Node, has_living_head
from airflow_provider_ray.client.errors import RayAuthError, RayRequestError
from airflow_provider_ray.client.states import PENDING, RUNNING

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.cluster import Cluster

log = logging.getLogger(__name__)

# With a submission_id it stands for the node that is the head, on which a PENDING job is started or given up.
HEAD = "head for "


class NodeHealth:
    """States of a cluster's nodes, listed at most every 30 seconds.

    :param cluster: the cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._looked_at = monotonic()
        self._looking: asyncio.Task[None] | None = None
        self._nodes: Mapping[str, Node] = {}
        self._asked_since: dict[str, float] = {}
        self._missed: Counter[str] = Counter()
        self._has_refused = False

    async def why_lost(self, job: JobDetails, *, within: float | None = None) -> str | None:
        """Why a job must be given up; None while there is no reason to.

        The node of its driver has to be missing or dead in two checks that began after a job was first seen on it: Ray
        may report the end first, and a node may be younger than a check. For a PENDING job it is the head node.

        :param within: seconds that the caller can wait. A check that takes longer goes on, and counts next time.
        """
        pending = f"{HEAD}{job.submission_id}"
        if job.status != PENDING:
            self._asked_since.pop(pending, None)
            self._missed.pop(pending, None)
        node_id = {RUNNING: job.driver_node_id, PENDING: pending}.get(job.status)
        if node_id is None:
            return None
        self._asked_since.setdefault(node_id, monotonic())
        await self._look_within(within)
        if self._missed[node_id] < pacing.NODES_LOOKS_NEEDED:
            return None
        if node_id == pending:
            return "it has not started, and the head node of its cluster is dead"
        node = self._nodes.get(node_id)
        state = (
            f"{node.state} ({(node.state_message or 'no reason given')[:1000]})" if node else "no longer in the cluster"
        )
        return f"the node {node_id} of its driver is {state}"

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look_within(self, within: float | None) -> None:
        is_looking = self._looking is not None and not self._looking.done()
        if is_looking or monotonic() - self._looked_at < pacing.NODES_LOOK_SECONDS:
            return
        self._looked_at = monotonic()
        self._looking = asyncio.create_task(self._look())
        longest = pacing.NODES_ANSWER_SECONDS
        # Unlike a timeout, this does not end the check, which all waits of the cluster share.
        await asyncio.wait([self._looking], timeout=longest if within is None else min(max(within, 0), longest))
        if self._looking.done():
            self._looking.result()

    async def _look(self) -> None:
        try:
            self._nodes = {node.node_id: node for node in await self._cluster.nodes()}
        except RayRequestError as error:
            # It says nothing about the nodes. A transient fault also affects polling the job, which decides.
            is_refusal = not error.transient or isinstance(error, RayAuthError)
            is_news = is_refusal and not self._has_refused
            self._has_refused = self._has_refused or is_news
            log.log(logging.WARNING if is_news else logging.DEBUG, "Cannot list the nodes: %s", error)
            return
        alive = {node.node_id for node in self._nodes.values() if node.is_alive}
        has_head = has_living_head(self._nodes.values())
        for node_id, since in self._asked_since.items():
            if node_id in alive or (has_head and node_id.startswith(HEAD)):
                self._missed[node_id] = 0
            elif since < self._looked_at:
                self._missed[node_id] += 1
