"""What a fake cluster knows, and what a test tells it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

from aiohttp import web

NODE_ID = "f" * 56
TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(kw_only=True)
class Outcome:
    """What becomes of a job; times are seconds after its submission.

    :param ends_after: None for a job that never ends by itself.
    :param log: the driver log, whole or as pieces with the time at which each is written.
    :param stop_after: seconds that a stop takes, None for a job that ignores it.
    :param meanwhile: state between the start and the end.
    :param has_driver: False for a job that fails before its driver starts.
    """

    running_after: float = 0.0
    ends_after: float | None = 0.0
    status: str = "SUCCEEDED"
    exit_code: int | None = 0
    message: str | None = None
    error_type: str | None = None
    log: bytes | list[tuple[float, bytes]] = b""
    stop_after: float | None = 0.0
    meanwhile: str = "RUNNING"
    has_driver: bool = True


@dataclass
class Job:
    """A submitted job."""

    body: Mapping[str, Any]
    outcome: Outcome
    submitted: float = field(default_factory=time.monotonic)
    submitted_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    stopped: float | None = None
    preamble: bytes = b""

    @property
    def status(self) -> str:
        age, outcome = time.monotonic() - self.submitted, self.outcome
        if self.stopped is not None and time.monotonic() >= self.stopped:
            return "STOPPED"
        if age < outcome.running_after:
            return "PENDING"
        ended = outcome.ends_after is not None and age >= outcome.ends_after
        return outcome.status if ended else outcome.meanwhile

    @property
    def log(self) -> bytes:
        age, log = time.monotonic() - self.submitted, self.outcome.log
        whole = log if isinstance(log, bytes) else b"".join(text for second, text in log if second <= age)
        return self.preamble + whole

    def details(self, error_types: bool) -> dict[str, Any]:
        status, outcome = self.status, self.outcome
        by_itself = status == outcome.status
        return {
            "type": "SUBMISSION",
            "job_id": self.body.get("job_id"),
            "submission_id": self.body["submission_id"],
            "driver_info": None,
            "status": status,
            "entrypoint": self.body["entrypoint"],
            "message": outcome.message if by_itself else f"Job is {status}.",
            "error_type": outcome.error_type if by_itself and error_types else None,
            "start_time": self.submitted_ms,
            "end_time": self.submitted_ms + 1 if status in TERMINAL else None,
            "metadata": self.body.get("metadata") or {},
            "runtime_env": self.body.get("runtime_env") or {},
            "driver_agent_http_address": None,
            "driver_node_id": NODE_ID if outcome.has_driver and status != "PENDING" else None,
            "driver_exit_code": outcome.exit_code if by_itself else None,
        }


@dataclass(kw_only=True)
class Fault:
    """What the next matching requests get instead of their answer.

    :param kind: a status, or a closed connection, a connection that stays silent, or an answer cut in half.
    :param handled: the request takes effect before the fault strikes.
    :param late: seconds after the fault at which the request takes effect, as on a busy head; 0 for never.
    """

    kind: int | Literal["close", "hang", "cut"]
    times: int = 1
    method: str | None = None
    path: str = "/"
    text: str = "fault"
    handled: bool = False
    late: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recorded:
    """A request as it arrived."""

    server: Literal["dashboard", "serve"]
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Application:
    """A Serve application: the body of its answers, or a handler that makes them."""

    name: str
    route_prefix: str | None
    answer: Handler | Any
    status: str = "RUNNING"
    message: str = ""
    routed: bool = True


class FakeCluster:
    """State of a fake cluster; a test reads and writes its attributes.

    ``has_status`` is False for a cluster whose autoscaler has not spoken yet. ``used`` are amounts in use besides those
    of its jobs, ``reserved`` what placement groups use and hold, ``demands`` lines about what waits for resources,
    ``drivers`` what is running without the Jobs API. ``serve_options`` are HTTP options that Serve reports besides its
    address; as in Ray, a ``root_path`` there does not move the routes.

    :param ray_version: what the cluster says it is; old ones refuse what they do not know.
    :param token: bearer token that the dashboard demands.
    """

    def __init__(self, ray_version: str, token: str | None) -> None:
        self.ray_version = ray_version
        self.session_name = f"session_{uuid4().hex}"
        self.token = token
        self.jobs: dict[str, Job] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.default_outcome = Outcome()
        self.packages: dict[str, bytes] = {}
        self.applications: dict[str, Application] = {}
        head = {
            "state": "ALIVE",
            "state_message": None,
            "is_head_node": True,
            "resources_total": {
                "CPU": 2.0,
                "memory": 1e9,
                "object_store_memory": 1e8,
                "node:127.0.0.1": 1.0,
                "node:__internal_head__": 1.0,
            },
        }
        self.nodes: list[dict[str, Any]] = [{"node_id": NODE_ID, **head}]
        self.python_version = "3.11.2"
        self.has_status = True
        self.used: dict[str, float] = {}
        self.reserved: dict[str, tuple[float, float]] = {}
        self.demands: list[str] = []
        self.drivers: list[dict[str, Any]] = []
        self.requests: list[Recorded] = []
        self.faults: list[Fault] = []
        self.log_preamble = False
        self.log_write_bytes = 64 * 1024
        self.log_write_pause = 0.0
        self.serve_port = 0
        self.serve_options: dict[str, Any] = {"root_path": "", "ssl_certfile": None}

    def deploy(self, name: str, route_prefix: str, answer: Handler | Any, **state: Any) -> Application:
        """Make an application known; it answers as soon as its status is RUNNING and it is routed."""
        self.applications[name] = Application(name, route_prefix, answer, **state)
        return self.applications[name]

    def fail(self, kind: int | Literal["close", "hang", "cut"], **fault: Any) -> None:
        """Put a :class:`Fault` in the way of the next requests."""
        self.faults.append(Fault(kind=kind, **fault))

    def asked(self, method: str, path: str) -> list[Recorded]:
        """The requests so far with this method and a path that begins like this."""
        return [each for each in self.requests if each.method == method and each.path.startswith(path)]

    def is_older_than(self, major: int, minor: int) -> bool:
        """Whether the cluster plays a release of Ray before this one."""
        own = self.ray_version.split(".")
        return (int(own[0]), int(own[1])) < (major, minor)
