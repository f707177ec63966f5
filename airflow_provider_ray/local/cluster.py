"""What a cluster of this host is, and how it is to be started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_ray.local.ports import Ports


@dataclass(frozen=True)
class LocalOptions:
    """How local clusters are started.

    :param num_cpus: CPUs that each cluster offers to Ray (default 2); not limited to what the host has.
    :param memory: bytes that each cluster offers to Ray (default 1 GB); bookkeeping, not a limit.
    :param object_store_memory: bytes of shared memory of each object store (default 100 MB, at least 80 MB).
    :param tokens: one token or None per cluster; a cluster with a token refuses requests without it
        (default: no tokens).
    :param ray_executable: the `ray` command of any virtual environment (default: the one beside this Python).
    :param env: environment variables for Ray (default: none), on top of those of this process that are not
        Airflow's, Ray's or Python's.
    :param timeout: seconds until every cluster must have run a job (default 180).
    """

    num_cpus: int = 2
    memory: int = 1_000_000_000
    object_store_memory: int = 100_000_000
    tokens: Sequence[str | None] = field(default=(), repr=False)
    ray_executable: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 180.0


@dataclass(frozen=True)
class LocalCluster:
    """One Ray cluster of this host; `name` is also the id of its Airflow connection."""

    name: str
    ports: Ports
    marker: str
    temp_dir: str
    log_file: str
    pid: int | None = None
    token: str | None = field(default=None, repr=False)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LocalCluster:
        """Rebuild a cluster from the state file."""
        return cls(**{**value, "ports": Ports(**value["ports"])})

    @property
    def url(self) -> str:
        """Return the address of the dashboard and the Jobs API."""
        return f"http://127.0.0.1:{self.ports.dashboard}"

    @property
    def serve_port(self) -> int:
        """Return the port that a job must give to Serve on this cluster."""
        return self.ports.serve

    @property
    def serve_url(self) -> str:
        """Return the address of Serve, once a job has started it on `serve_port`."""
        return f"http://127.0.0.1:{self.ports.serve}"
