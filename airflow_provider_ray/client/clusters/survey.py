"""Querying many clusters at the same time, and waiting until they have room.

What clusters answer becomes :class:`Findings` through :func:`find`, whether a worker or the triggerer waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.capacity import Capacity
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.api.retry import patience
from airflow_provider_ray.client.clusters.asking import Question, answer_of, ask_all
from airflow_provider_ray.client.clusters.health import healthy_or_fault
from airflow_provider_ray.client.errors import RayAuthError, RayAuthLapsed, RayClusterUnavailable, RayError
from airflow_provider_ray.client.jobs.waiting import intervals
from airflow_provider_ray.client.values import resources, whole_number

if TYPE_CHECKING:
    from airflow_provider_ray.client.config import ClusterConfig
    from airflow_provider_ray.client.jobs.log_relay import Logger


async def survey(
    configs: Mapping[str, ClusterConfig], accepted: Collection[str] = ()
) -> dict[str, Capacity | RayError]:
    """Capacities of many clusters, or the errors that came instead.

    All are queried at the same time; one that has not answered after ``pacing.ANSWER_SECONDS`` is unavailable, whatever
    its own timeouts are, and does not delay the others.

    :param configs: the clusters by connection id.
    :param accepted: those that have accepted their credentials before; for them a rejection is a passing fault.
    """
    questions: list[Question[Capacity]] = [
        Question(RayClient(config, accepted=conn_id in accepted), RayClient.capacity, pacing.ANSWER_SECONDS)
        for conn_id, config in configs.items()
    ]
    answers = await ask_all(questions)
    return dict(zip(configs, answers, strict=True))


class Rejections:
    """Since when clusters have rejected credentials that they accepted before, by connection id."""

    def __init__(self) -> None:
        self.accepted: set[str] = set()  # connections whose credentials have been accepted
        self._since: dict[str, float] = {}

    def judged(self, answers: Mapping[str, Capacity | RayError]) -> dict[str, Capacity | RayError]:
        """The answers; after ``[ray] auth_budget`` seconds, a rejection is no longer a passing fault."""
        return {conn_id: self._judge(conn_id, answer) for conn_id, answer in answers.items()}

    def _judge(self, conn_id: str, answer: Capacity | RayError) -> Capacity | RayError:
        if isinstance(answer, Capacity):
            self.accepted.add(conn_id)
        if not isinstance(answer, RayAuthLapsed):
            self._since.pop(conn_id, None)
            return answer
        since = self._since.setdefault(conn_id, monotonic())
        return answer if monotonic() - since < patience(answer) else RayAuthError.from_message(str(answer))


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a cluster must have to be ready, besides being healthy. A value that is unknown is never enough.

    :param free_resources: what must be free, by Ray's names; memory in bytes.
    :param max_pending_jobs: how many jobs may be PENDING, None for any number.
    :param max_running_jobs: how many jobs may be RUNNING, None for any number.
    """

    free_resources: Mapping[str, float] = field(default_factory=dict)
    max_pending_jobs: int | None = None
    max_running_jobs: int | None = None

    @classmethod
    def from_fields(
        cls, *, free_resources: Any = None, max_pending_jobs: Any = None, max_running_jobs: Any = None
    ) -> Room:
        """Build the value from fields that may be templates rendered to strings.

        :raises RayConfigError: naming the field, what it held and what was expected.
        """
        return cls(
            free_resources=resources("free_resources", free_resources or {}),
            max_pending_jobs=whole_number("max_pending_jobs", max_pending_jobs),
            max_running_jobs=whole_number("max_running_jobs", max_running_jobs),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON that :meth:`from_fields` takes."""
        return asdict(self)

    def why_not(self, answer: Capacity | RayError) -> str | None:
        """What a cluster lacks, None when it is ready.

        :param answer: its capacity, or the error that came instead.
        """
        capacity = healthy_or_fault(answer)
        if isinstance(capacity, RayError):
            return str(capacity)
        lacks = [
            *(_shortage(capacity, name, wanted) for name, wanted in self.free_resources.items()),
            _excess("pending", capacity.pending_jobs, self.max_pending_jobs, capacity),
            _excess("running", capacity.running_jobs, self.max_running_jobs, capacity),
        ]
        return ", ".join(filter(None, lacks)) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What clusters have answered, compared with what is needed.

    :param ready: capacities of the clusters that are ready, as JSON, by connection id.
    :param waiting: what the others lack, by connection id.
    :param fault: what waiting will not resolve, such as rejected credentials.
    """

    ready: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    fault: RayError | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for a trigger's event."""
        return {
            "ready": dict(self.ready),
            "waiting": dict(self.waiting),
            "fault": self.fault and self.fault.to_json(),
        }

    @classmethod
    def from_json(cls, event: Mapping[str, Any]) -> Findings:
        """Build the value from a trigger's event."""
        fault = event.get("fault")
        return cls(
            ready=event.get("ready") or {},
            waiting=event.get("waiting") or {},
            fault=RayError.from_json(fault) if fault else None,
        )

    def is_over(self, required: int) -> bool:
        """Whether waiting ends: enough clusters are ready, or waiting is pointless.

        :param required: how many clusters must be ready.
        """
        return self.fault is not None or len(self.ready) >= required

    def result(self, required: int) -> Mapping[str, Mapping[str, Any]]:
        """Capacities of the clusters that are ready.

        :param required: how many must be.
        :raises RayError: the fault; without one, a :class:`RayClusterUnavailable` that says what the others lack.
        """
        if self.fault is not None:
            raise self.fault
        if not self.is_over(required):
            reason = f"{len(self.ready)} of the clusters were ready in time, {required} required; {self.lacks}"
            raise RayClusterUnavailable.from_message(reason)
        return self.ready

    @property
    def lacks(self) -> str:
        """What the clusters that are not ready lack, in words."""
        return "; ".join(f"{conn_id}: {lack}" for conn_id, lack in self.waiting.items())

    def tell(self, logger: Logger, said: str) -> str:
        """Log what the clusters lack, unless that was logged last; return what was logged last.

        :param said: what was logged last.
        """
        if self.lacks != said:
            logger.log(logging.INFO, "Not ready yet: %s", self.lacks)
        return self.lacks


def find(answers: Mapping[str, Capacity | RayError], room: Room) -> Findings:
    """Compare the answers of clusters with what is needed.

    A cluster that does not answer is waited for; one that rejects the request is a fault.

    :param answers: by connection id.
    :param room: what each cluster must have.
    """
    lacks = {conn_id: room.why_not(answer) for conn_id, answer in answers.items()}
    faults = [
        type(answer).from_message(f"connection {conn_id!r}: {answer}")
        for conn_id, answer in answers.items()
        if isinstance(answer, RayError) and not answer.transient
    ]
    return Findings(
        ready={
            conn_id: answer.to_json()
            for conn_id, answer in answers.items()
            if isinstance(answer, Capacity) and lacks[conn_id] is None
        },
        waiting={conn_id: lack for conn_id, lack in lacks.items() if lack is not None},
        fault=faults[0] if faults else None,
    )


async def wait_for_room(
    clients: Mapping[str, RayClient], room: Room, *, required: int, poll_interval: float, timeout: float, logger: Logger
) -> Findings:
    """Query clusters until enough of them are ready or the time is up, and return what was found last.

    :param clients: open clients by connection id.
    :param room: what each cluster must have.
    :param required: how many clusters must be ready.
    :param poll_interval: longest time between two requests, in seconds; the first ones are more frequent.
    :param timeout: seconds from now.
    :param logger: gets what the clusters lack, whenever that changes.
    """
    deadline, pauses, said, rejections = monotonic() + timeout, intervals(poll_interval), "", Rejections()
    while True:
        within = pacing.ANSWER_SECONDS
        asking = [answer_of(client.capacity(), client.config.url, within) for client in clients.values()]
        answers = await asyncio.gather(*asking)
        for client, answer in zip(clients.values(), answers, strict=True):
            client.accepted = client.accepted or isinstance(answer, Capacity)
        findings = find(rejections.judged(dict(zip(clients, answers, strict=True))), room)
        left = deadline - monotonic()
        if findings.is_over(required) or left <= 0:
            return findings
        said = findings.tell(logger, said)
        await asyncio.sleep(min(next(pauses), left))


def _shortage(capacity: Capacity, name: str, wanted: float) -> str | None:
    if name not in capacity.total:
        return f"it has no {name}"
    free = (capacity.free or {}).get(name)
    if free is None:
        return f"its free {name} is unknown{_because(capacity, 'usage')}"
    return None if free >= wanted else f"{free:g} of {capacity.total[name]:g} {name} free, {wanted:g} required"


def _excess(state: str, count: int | None, most: int | None, capacity: Capacity) -> str | None:
    if most is None:
        return None
    if count is None:
        return f"its {state} jobs are unknown{_because(capacity, 'jobs')}"
    return None if count <= most else f"{count} {state} jobs, at most {most} allowed"


def _because(capacity: Capacity, what: str) -> str:
    reason = capacity.unknown.get(what)
    return f" ({reason})" if reason else ""
