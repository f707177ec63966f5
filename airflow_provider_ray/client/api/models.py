"""The answers of a cluster as frozen values; an answer with other types or ranges is rejected when it is decoded.

Keys that are not listed are ignored, and states may be ones that Ray does not have yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta, field

from airflow_provider_ray.client.states import NODE_ALIVE

# Airflow's database and the messages between its processes hold integers of 64 bits, dates end with the year 9999, and
# a sum of amounts must stay a number.
ExitCode = Annotated[int, Meta(ge=-(2**31), lt=2**32)]
Milliseconds = Annotated[int, Meta(ge=0, lt=253_402_300_800_000)]
Amount = Annotated[float, Meta(ge=0, le=2.0**63)]
# What Ray itself writes: states, versions, ids of its own.
Word = Annotated[str, Meta(max_length=10_000)]
Port = Annotated[int, Meta(ge=1, le=65535)]

# Characters. Ray cuts the message of a job off at 20,000; one that has failed before it started may be longer.
MESSAGE_LENGTH = 30_000


class Answer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A value that a cluster's answer is decoded to; null and a missing key are the same.

    ``gc=False``: it refers to nothing that could refer back to it, so a list of ten thousand jobs does not make the
    garbage collector look at everything in the process.
    """

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Build the value from decoded JSON, with the checks that a cluster's answer goes through.

        :raises msgspec.ValidationError: saying what was expected, and where.
        """
        return msgspec.convert(body, cls)

    def serialize(self) -> dict[str, Any]:
        """What XCom stores, by Airflow's convention for classes."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def deserialize(cls, data: Mapping[str, Any], _: int) -> Self:
        """The value from what XCom has stored, by the same convention."""
        return cls.from_json(data)


def _shorten(answer: JobDetails | Application, message: str | None) -> None:
    """Cut off a message as it enters: it becomes part of events, errors and logs."""
    if message is not None and len(message) > MESSAGE_LENGTH:
        msgspec.structs.force_setattr(answer, "message", f"{message[:MESSAGE_LENGTH]}… ({len(message)} characters)")


class JobDetails(Answer, frozen=True, kw_only=True, rename={"start_time_ms": "start_time", "end_time_ms": "end_time"}):
    """A job as ``GET /api/jobs/{id}`` describes it (Ray 2.49-2.60).

    ``runtime_env`` is left out on purpose: the cluster returns env_vars in plain text.

    :param submission_id: None for a driver that did not come through the Jobs API.
    :param job_id: Ray's id of the driver, once the driver has connected.
    :param status: see :mod:`airflow_provider_ray.client.states`.
    :param error_type: Ray's class of the failure (Ray 2.50+), such as JOB_ENTRYPOINT_COMMAND_ERROR.
    :param driver_exit_code: exit code of the entrypoint; negative for a signal, None when unknown or stopped.
    :param driver_node_id: node of the driver, None until the job is RUNNING.
    :param start_time_ms: time of submission, milliseconds since the epoch.
    :param end_time_ms: time of the end, milliseconds since the epoch.
    """

    submission_id: str | None = None
    status: Word
    job_id: Word | None = None
    message: str | None = None
    error_type: Word | None = None
    driver_exit_code: ExitCode | None = None
    driver_node_id: Word | None = None
    entrypoint: str | None = None
    metadata: Mapping[str, str] | None = None
    start_time_ms: Milliseconds | None = None
    end_time_ms: Milliseconds | None = None

    def __post_init__(self) -> None:
        _shorten(self, self.message)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for an event: without entrypoint and metadata, which hold rendered, unmasked values."""
        return {**self.serialize(), "entrypoint": None, "metadata": None}

    @property
    def seconds(self) -> float | None:
        """Seconds from submission to the end, None while the job has not ended."""
        if self.start_time_ms is None or self.end_time_ms is None:
            return None
        return (self.end_time_ms - self.start_time_ms) / 1000

    @property
    def summary(self) -> str:
        """The status in a few words, such as "SUCCEEDED after 12 s"."""
        return self.status if self.seconds is None else f"{self.status} after {self.seconds:.0f} s"


class ClusterVersion(Answer, frozen=True, kw_only=True):
    """What ``GET /api/version`` reports.

    :param ray_version: version of Ray on the head node.
    :param session_name: changes when the head comes back without its records.
    """

    ray_version: Word
    session_name: Word | None = None

    def at_least(self, major: int, minor: int) -> bool:
        """Whether the cluster runs this release of Ray or a newer one; a version without numbers counts as newer."""
        release = re.match(r"(\d{1,9})\.(\d{1,9})", self.ray_version)
        return release is None or (int(release[1]), int(release[2])) >= (major, minor)


class Node(Answer, frozen=True, kw_only=True):
    """A node of the cluster; dead nodes stay listed.

    :param state: ALIVE or DEAD.
    :param resources_total: resources by their true names; memory in bytes.
    """

    node_id: Word
    state: Word
    state_message: str | None = None
    is_head_node: bool | None = None
    resources_total: Mapping[str, Amount] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the node takes part in the cluster."""
        return self.state == NODE_ALIVE


def has_living_head(nodes: Iterable[Node]) -> bool:
    """Whether the head node is one of those that are alive."""
    return any(node.is_head_node and node.is_alive for node in nodes)


class Application(Answer, frozen=True, kw_only=True):
    """A Serve application.

    :param status: NOT_STARTED, DEPLOYING, DEPLOY_FAILED, RUNNING, UNHEALTHY or DELETING.
    :param message: why, when the status is not RUNNING.
    :param route_prefix: None until Ray has built the application, or when it has no route.
    """

    name: str
    status: Word
    message: str | None = None
    route_prefix: str | None = None

    def __post_init__(self) -> None:
        _shorten(self, self.message)


class HttpOptions(Answer, frozen=True, kw_only=True):
    """How Serve's HTTP proxies listen.

    ``root_path`` is left out on purpose: it is for a proxy in front of Serve that strips it, and Serve itself has no
    routes below it (Ray 2.49-2.60).

    :param ssl_certfile: certificate of proxies that speak HTTPS (Ray 2.50+).
    """

    port: Port | None = None
    ssl_certfile: str | None = None


class ServeDetails(Answer, frozen=True, kw_only=True):
    """State of Serve on a cluster."""

    http_options: HttpOptions | None = None
    by_name: Mapping[str, Application] | None = field(default=None, name="applications")

    @property
    def applications(self) -> Mapping[str, Application]:
        """Applications by name."""
        return self.by_name or {}

    @property
    def port(self) -> int | None:
        """Port of the HTTP proxies, None when Serve is not running."""
        return self.http_options.port if self.http_options else None

    @property
    def has_tls(self) -> bool:
        """Whether the HTTP proxies speak HTTPS."""
        return self.http_options is not None and bool(self.http_options.ssl_certfile)


# The state API's own maximum; without a limit it leaves out all rows after the first hundred.
ROW_LIMIT = 10_000
