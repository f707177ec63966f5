"""Describes a cluster on this host and the options to start it with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_ray.local.errors import LocalClusterError
from airflow_provider_ray.local.ports import Ports


@dataclass(frozen=True)
class LocalOptions:
    """Options for starting local clusters.

    :param prefix: the clusters, and their Airflow connections, are named ``<prefix>_1``, ``<prefix>_2`` and so on; a
        letter, then letters, digits and underscores (default ray_local).
    :param num_cpus: CPUs that each cluster offers to Ray (default 2); may exceed the CPUs of the host.
    :param memory: bytes that each cluster offers to Ray (default 1 GB); for scheduling only, not enforced.
    :param object_store_memory: bytes of shared memory for each object store (default 100 MB, minimum 80 MB).
    :param tokens: a token or None for each cluster; a cluster with a token rejects requests without it
        (default: no tokens).
    :param ray_executable: path of the `ray` command, from any virtual environment (default: the one next to this
        Python).
    :param env: additional environment variables for Ray (default: none). Ray also inherits the variables of this
        process, except those of Airflow, Ray and Python.
    :param timeout: seconds within which every cluster must have run a job (default 180).
    """

    prefix: str = "ray_local"
    num_cpus: int = 2
    memory: int = 1_000_000_000
    object_store_memory: int = 100_000_000
    tokens: Sequence[str | None] = field(default=(), repr=False)
    ray_executable: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 180.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", self.prefix):
            raise LocalClusterError(
                f"prefix: got {self.prefix!r}, expected a letter, then letters, digits and underscores"
            )


@dataclass(frozen=True)
class LocalCluster:
    """A Ray cluster on this host; `name` is also the id of its Airflow connection.

    :param session: Ray's name for this start of the head, by which another cluster at the same port is recognized.
    """

    name: str
    ports: Ports
    marker: str
    temp_dir: str
    log_file: str
    pid: int | None = None
    token: str | None = field(default=None, repr=False)
    session: str | None = None

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
        """Return the port on which a job must start Serve on this cluster."""
        return self.ports.serve

    @property
    def serve_url(self) -> str:
        """Return the address of Serve, once a job has started it on `serve_port`."""
        return f"http://127.0.0.1:{self.ports.serve}"
