"""What a task instance remembers between its attempts: jobs that may still be active, and clusters that failed it.

It is kept in the task state store (Airflow 3.3) and written before a job is submitted, so a crash at any line loses
nothing. The store survives retries and, on Airflow 3.3, clears: a clear changes the task's ``max_tries``, a retry does
not.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_ray.hooks import options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_ray.compat.tasks import RuntimeTaskInstanceProtocol

STATE_KEY = "ray_job"
# XComs that name the task's current job before it ends, for submit.output["submission_id"] in Dags.
CONN_ID_KEY = "conn_id"
SUBMISSION_ID_KEY = "submission_id"
# Metadata of a job: which attempt submitted it.
TRY_NUMBER_KEY = "airflow_try_number"
MAX_TRIES_KEY = "airflow_max_tries"
_NAME_LENGTH = 60
_NUMBER = re.compile(r"[0-9]{1,9}")


def stamps(dag_id: str, run_id: str, task_id: str, map_index: int | None) -> dict[str, str]:
    """The entries in a job's metadata that name the task instance which submitted it."""
    from airflow_provider_ray.client.jobs.submission import IDENTITY_KEYS

    return dict(zip(IDENTITY_KEYS, (options.installation(), dag_id, run_id, task_id, str(map_index)), strict=True))


def choice_of(metadata: Mapping[str, str]) -> tuple[int, int]:
    """The ``max_tries`` and ``try_number`` of the attempt that submitted a job, as its metadata has them; -1 if not."""
    numbers = (metadata.get(key, "") for key in (MAX_TRIES_KEY, TRY_NUMBER_KEY))
    max_tries, try_number = (int(text) if _NUMBER.fullmatch(text) else -1 for text in numbers)
    return max_tries, try_number


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskJob:
    """A job of a task instance, as the task state store holds it.

    :param conn_id: connection of the cluster.
    :param submission_id: id of the job.
    :param nonce: random text in the job's metadata, which distinguishes it from another job with the same id.
    :param max_tries: the task's ``max_tries`` when the id was chosen.
    :param stopping: the job got a stop request because its time was up, so no attempt resumes it.
    :param lost: the job was given up as lost, so no attempt resumes it or waits for its end.
    :param session: session of the cluster, by which another connection to it is recognized; None if the task has only
        one connection.
    """

    conn_id: str
    submission_id: str
    nonce: str
    max_tries: int
    stopping: bool = False
    lost: bool = False
    session: str | None = None

    def metadata(self, ti: RuntimeTaskInstanceProtocol) -> dict[str, str]:
        """The entries in the job's metadata by which its task finds it, and which tell what a later attempt may do."""
        from airflow_provider_ray.client.jobs.submission import NONCE_KEY

        return {
            **stamps(ti.dag_id, ti.run_id, ti.task_id, ti.map_index),
            TRY_NUMBER_KEY: str(ti.try_number),
            MAX_TRIES_KEY: str(ti.max_tries),
            NONCE_KEY: self.nonce,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a task instance remembers of its earlier attempts.

    :param jobs: those that may be active or have succeeded, the newest first.
    :param failed_on: connections whose cluster failed an attempt, the latest last; other clusters are preferred.
    """

    jobs: tuple[TaskJob, ...] = ()
    failed_on: tuple[str, ...] = ()

    def write(self, store: Any) -> None:
        """Store the value for every later attempt of this task instance.

        :param store: the task state store; None forgets the value.
        """
        if store is not None:
            store.set(STATE_KEY, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The fields of the newest job, if there is one, with the rest beside them."""
        newest = asdict(self.jobs[0]) if self.jobs else {}
        return {**newest, "left_behind": [asdict(job) for job in self.jobs[1:]], "failed_on": list(self.failed_on)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Memory:
        """Build the value from what :meth:`to_json` wrote."""
        newest = dict(record)
        left_behind, failed_on = newest.pop("left_behind"), newest.pop("failed_on")
        jobs = [*([newest] if newest else []), *left_behind]
        return cls(jobs=tuple(TaskJob(**job) for job in jobs), failed_on=tuple(failed_on))

    def with_newest(self, change: Callable[[TaskJob], TaskJob]) -> Memory:
        """The same with the newest job changed, if there is one."""
        return replace(self, jobs=(*map(change, self.jobs[:1]), *self.jobs[1:]))

    def with_failure_of(self, conn_id: str) -> Memory:
        """The same with a cluster as the latest that failed an attempt."""
        return replace(self, failed_on=(*(each for each in self.failed_on if each != conn_id), conn_id))


def read(store: Any, max_tries: int) -> Memory:
    """What earlier attempts stored. Clearing a task also clears which clusters failed it.

    :param store: the task state store; None remembers nothing.
    :param max_tries: the task's ``max_tries``; a clear changes it.
    """
    record: Any = None if store is None else store.get(STATE_KEY)
    if not record:
        return Memory()
    memory = Memory.from_json(record)
    is_cleared = bool(memory.jobs) and memory.jobs[0].max_tries != max_tries
    return replace(memory, failed_on=()) if is_cleared else memory


def new_job(
    ti: RuntimeTaskInstanceProtocol,
    conn_id: str,
    submission_id: str | None,
    *,
    has_predecessor: bool,
    session: str | None = None,
) -> TaskJob:
    """A new job. Its id is the author's, or a readable name with a random part, since Ray never forgets an id.

    :param submission_id: the author's choice; if an earlier job used it, the new one gets a suffix.
    :param session: session of the cluster, if it matters.
    """
    from airflow_provider_ray.client.api.job_spec import SUBMISSION_ID_LIMIT

    nonce = new_nonce()
    if not submission_id:
        index = str(ti.map_index) if ti.map_index is not None and ti.map_index >= 0 else ""
        submission_id = "-".join(part for part in (_slug(ti.dag_id), _slug(ti.task_id), index, nonce) if part)
    elif has_predecessor:
        submission_id = f"{submission_id[: SUBMISSION_ID_LIMIT - len(nonce) - 1]}-{nonce}"
    return TaskJob(conn_id=conn_id, submission_id=submission_id, nonce=nonce, max_tries=ti.max_tries, session=session)


def new_nonce() -> str:
    """Random text for the metadata of a job."""
    return uuid4().hex[:12]


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")[:_NAME_LENGTH] or "x"
