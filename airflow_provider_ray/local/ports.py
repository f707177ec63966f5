"""Finds free ports for clusters on this host."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from airflow_provider_ray.local.errors import LocalClusterError

FIRST_DASHBOARD, FIRST_SERVE, FIRST_BLOCK, BLOCK_SIZE = 8301, 8401, 21100, 100
# Keeps all ports below the range that Linux uses for outgoing connections.
SETS = 99
# In the order of their position in a block. Ports chosen by Ray would be random and could clash with another head.
SERVICES = (
    "port",
    "dashboard-agent-listen-port",
    "ray-client-server-port",
    "node-manager-port",
    "object-manager-port",
    "metrics-export-port",
    "runtime-env-agent-port",
    "dashboard-agent-grpc-port",
)


@dataclass(frozen=True)
class Ports:
    """The ports of a cluster: dashboard, Serve, and a block of one hundred for everything else."""

    dashboard: int
    serve: int
    block: int

    def __iter__(self) -> Iterator[int]:
        return iter((self.dashboard, self.serve, *range(self.block, self.block + BLOCK_SIZE)))

    @property
    def agent(self) -> int:
        """Return the port of the dashboard agent, which starts jobs."""
        return self.block + SERVICES.index("dashboard-agent-listen-port")

    def arguments(self) -> list[str]:
        """Return the port options of `ray start`."""
        services = [f"--{name}={self.block + place}" for place, name in enumerate(SERVICES)]
        workers = [f"--min-worker-port={self.block + 10}", f"--max-worker-port={self.block + BLOCK_SIZE - 1}"]
        return [f"--dashboard-port={self.dashboard}", *services, *workers]

    def environment(self) -> dict[str, str]:
        """Return the ports that Ray reads only from its environment."""
        return {
            "AUTOSCALER_METRIC_PORT": str(self.block + 8),
            "DASHBOARD_METRIC_PORT": str(self.block + 9),
        }


def choose_ports(names: Iterable[str]) -> list[Ports]:
    """Return free ports for each named cluster, and the same ones every time as long as they are free.

    :raises LocalClusterError: too few sets of ports are free.
    """
    places = iter(range(SETS))
    return [_next_free(name, places) for name in names]


def _next_free(name: str, places: Iterator[int]) -> Ports:
    for place in places:
        ports = Ports(FIRST_DASHBOARD + place, FIRST_SERVE + place, FIRST_BLOCK + BLOCK_SIZE * place)
        if all(map(is_free, ports)):
            return ports
    raise LocalClusterError(f"{name}: no free set of ports left on this host")


def is_free(port: int) -> bool:
    """Return whether the port is unused on every address of this host."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
