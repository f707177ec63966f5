"""What the cluster answers, as frozen values; keys that are not listed are ignored."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_ray.client.states import NODE_ALIVE


def _finite(amount: Any) -> float:
    if not math.isfinite(amount):
        raise ValueError(f"a resource of {amount}")
    return float(amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetails:
    """A job as ``GET /api/jobs/{id}`` describes it (Ray 2.49-2.60).

    ``runtime_env`` is left out on purpose: the cluster returns env_vars in clear.

    :param submission_id: None for a driver that did not come through the Jobs API.
    :param job_id: Ray's id of the driver, once the driver has connected.
    :param status: see :mod:`airflow_provider_ray.client.states`.
    :param error_type: Ray's class of the failure (Ray 2.50+), such as JOB_ENTRYPOINT_COMMAND_ERROR.
    :param driver_exit_code: exit code of the entrypoint; negative for a signal, None when unknown or stopped.
    :param driver_node_id: node of the driver, None until the job is RUNNING.
    :param start_time_ms: time of submission, milliseconds since the epoch.
    :param end_time_ms: time of the end, milliseconds since the epoch.
    """

    submission_id: str | None
    status: str
    job_id: str | None = None
    message: str | None = None
    error_type: str | None = None
    driver_exit_code: int | None = None
    driver_node_id: str | None = None
    entrypoint: str = ""
    metadata: Mapping[str, str] | None = None
    start_time_ms: int | None = None
    end_time_ms: int | None = None

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> JobDetails:
        """Build the value from the body of an answer."""
        return cls(
            submission_id=body.get("submission_id"),
            status=body["status"],
            job_id=body.get("job_id"),
            message=body.get("message"),
            error_type=body.get("error_type"),
            driver_exit_code=body.get("driver_exit_code"),
            driver_node_id=body.get("driver_node_id"),
            entrypoint=body.get("entrypoint") or "",
            metadata={str(key): str(value) for key, value in (body.get("metadata") or {}).items()},
            start_time_ms=body.get("start_time"),
            end_time_ms=body.get("end_time"),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for an event: without entrypoint and metadata, which hold rendered, unmasked values."""
        return {**asdict(self), "entrypoint": "", "metadata": None}

    @property
    def seconds(self) -> float | None:
        """Seconds from submission to the end, None while the job has not ended."""
        if self.start_time_ms is None or self.end_time_ms is None:
            return None
        return (self.end_time_ms - self.start_time_ms) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterVersion:
    """What ``GET /api/version`` says.

    :param ray_version: version of Ray on the head node.
    :param session_name: changes when the head comes back without its records.
    """

    ray_version: str
    session_name: str | None

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> ClusterVersion:
        if not isinstance(body["ray_version"], str):
            raise TypeError("ray_version is not a text")
        return cls(ray_version=body["ray_version"], session_name=body.get("session_name"))

    def at_least(self, major: int, minor: int) -> bool:
        """Whether the cluster runs this release of Ray or a newer one; a version without numbers counts as newer."""
        release = re.match(r"(\d+)\.(\d+)", self.ray_version)
        return release is None or (int(release[1]), int(release[2])) >= (major, minor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of the cluster; dead nodes stay listed.

    :param state: ALIVE or DEAD.
    :param resources_total: resources by their true names; memory in bytes.
    """

    node_id: str
    state: str
    state_message: str | None
    is_head_node: bool
    resources_total: Mapping[str, float]

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Node:
        return cls(
            node_id=body["node_id"],
            state=body["state"],
            state_message=body.get("state_message"),
            is_head_node=bool(body.get("is_head_node")),
            resources_total={
                str(name): _finite(amount) for name, amount in (body.get("resources_total") or {}).items()
            },
        )

    @property
    def is_alive(self) -> bool:
        return self.state == NODE_ALIVE


def has_living_head(nodes: Iterable[Node]) -> bool:
    """Whether the head node is one of those that are alive."""
    return any(node.is_head_node and node.is_alive for node in nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """A Serve application.

    :param status: NOT_STARTED, DEPLOYING, DEPLOY_FAILED, RUNNING, UNHEALTHY or DELETING.
    :param message: why, when the status is not RUNNING.
    :param route_prefix: None until Ray has built the application, or when it has no route.
    """

    name: str
    status: str
    message: str
    route_prefix: str | None

    @classmethod
    def from_json(cls, name: str, body: Mapping[str, Any]) -> Application:
        return cls(
            name=name,
            status=body["status"],
            message=body.get("message") or "",
            route_prefix=body.get("route_prefix"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeDetails:
    """State of Serve on a cluster.

    :param port: port of the HTTP proxies, None when Serve does not run.
    :param root_path: prefix before every route, usually empty.
    :param applications: by name.
    """

    port: int | None
    root_path: str
    applications: Mapping[str, Application]

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> ServeDetails:
        options = body.get("http_options") or {}
        return cls(
            port=options.get("port"),
            root_path=options.get("root_path") or "",
            applications={
                name: Application.from_json(name, application)
                for name, application in (body.get("applications") or {}).items()
            },
        )
