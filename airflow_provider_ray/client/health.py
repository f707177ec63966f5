"""Whether a job that Ray calls RUNNING can still be running.

A job's record outlives its driver when the raylet of the driver's node has died while the dashboard lives on, and when
a head comes back with its records but without its processes (Ray 2.49-2.60). Only the node's state tells.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from time import monotonic

from airflow_provider_ray.client.cluster import Cluster
from airflow_provider_ray.client.errors import RayRequestError
from airflow_provider_ray.client.models import JobDetails, Node
from airflow_provider_ray.client.states import NODE_ALIVE, RUNNING

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
LOOKS_NEEDED = 2


class NodeHealth:
    """States of a cluster's nodes, asked for at most every 30 seconds.

    :param cluster: the cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._looked_at = monotonic()
        self._is_looking = False
        self._nodes: Mapping[str, Node] = {}
        self._asked_since: dict[str, float] = {}
        self._missed: Counter[str] = Counter()

    async def why_lost(self, job: JobDetails) -> str | None:
        """Why a job must be given up, None while there is no reason to.

        The node of its driver has to be missing or dead at two looks that began after the job was seen on it: Ray may
        speak first, and a node may be younger than a look.
        """
        if job.status != RUNNING or job.driver_node_id is None:
            return None
        node_id = job.driver_node_id
        self._asked_since.setdefault(node_id, monotonic())
        if monotonic() - self._looked_at >= LOOK_SECONDS and not self._is_looking:
            await self._look()
        if self._missed[node_id] < LOOKS_NEEDED:
            return None
        node = self._nodes.get(node_id)
        state = f"{node.state} ({node.state_message or 'no reason given'})" if node else "not in the cluster any more"
        return f"the node {node_id} of its driver is {state}"

    async def _look(self) -> None:
        self._looked_at, self._is_looking = monotonic(), True
        try:
            self._nodes = {node.node_id: node for node in await self._cluster.nodes()}
        except RayRequestError as error:
            # Says nothing about the nodes; polling the job meets a transient fault as well and decides.
            log.log(logging.DEBUG if error.transient else logging.WARNING, "The nodes cannot be asked for: %s", error)
            return
        finally:
            self._is_looking = False
        for node_id, since in self._asked_since.items():
            node = self._nodes.get(node_id)
            if node is not None and node.state == NODE_ALIVE:
                self._missed[node_id] = 0
            elif since < self._looked_at:
                self._missed[node_id] += 1
