"""What a task remembers of its jobs: the one of this attempt, and those of earlier ones that may still be active.

It is kept in the task state store (Airflow 3.3) and written before a job is submitted, so a crash at any line in
between loses nothing. The store survives retries, and clears as well: a clear is recognised by the task's
``max_tries``, which a retry leaves alone.
"""

from __future__ import annotations

import logging
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow.sdk import Context

    from airflow_provider_ray.jobs.stopping import Target

log = logging.getLogger(__name__)

STATE_KEY = "ray_job"
# XComs that say what the task's current job is, there before it ends: submit.output["submission_id"] in Dags.
CONN_ID_KEY = "conn_id"
SUBMISSION_ID_KEY = "submission_id"
_NAME_LENGTH = 60


def stamps(dag_id: str, run_id: str, task_id: str, map_index: int | None) -> dict[str, str]:
    """What a job has in its metadata of the task instance that submitted it."""
    return {
        "airflow_dag_id": dag_id,
        "airflow_run_id": run_id,
        "airflow_task_id": task_id,
        "airflow_map_index": str(map_index),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskJob:
    """A job of a task instance, as the task state store holds it.

    :param conn_id: connection of the cluster.
    :param submission_id: id of the job.
    :param nonce: random text in the job's metadata, which tells it from another job under the same id.
    :param max_tries: the task's ``max_tries`` when the id was chosen.
    :param stopping: the job was told to stop, so that no attempt goes on with it.
    :param lost: the job was given up, so that no attempt goes on with it or waits for its end.
    """

    conn_id: str
    submission_id: str
    nonce: str
    max_tries: int
    stopping: bool = False
    lost: bool = False

    def metadata(self, context: Context) -> dict[str, str]:
        """What is stamped on the job to find its task by; the same for all attempts that go on with it."""
        from airflow_provider_ray.client.jobs.submission import NONCE_KEY

        ti = context["ti"]
        return {**stamps(ti.dag_id, ti.run_id, ti.task_id, ti.map_index), NONCE_KEY: self.nonce}


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a task instance knows from its earlier attempts.

    :param jobs: those that may be active or have succeeded, the current one first.
    :param failed_on: connections whose cluster failed an attempt, the latest last; others are chosen before them.
    """

    jobs: tuple[TaskJob, ...] = ()
    failed_on: tuple[str, ...] = ()

    def store(self, context: Context) -> None:
        """Store the value; every later attempt of this task instance sees it."""
        store = context.get("task_state_store")
        if store is None:
            log.warning("There is no task state store: a retry will not find the Ray job of this attempt")
        else:
            store.set(STATE_KEY, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The fields of the current job, if there is one, with what there is besides."""
        current = asdict(self.jobs[0]) if self.jobs else {}
        return {**current, "others": [asdict(job) for job in self.jobs[1:]], "failed_on": list(self.failed_on)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Memory:
        """Build the value from what was stored."""
        current = dict(record)
        others, failed_on = current.pop("others"), current.pop("failed_on")
        jobs = [*([current] if current else []), *others]
        return cls(jobs=tuple(TaskJob(**job) for job in jobs), failed_on=tuple(failed_on))


def recall(context: Context) -> Memory:
    """What earlier attempts remembered. Which clusters failed them is forgotten when the task is cleared."""
    store = context.get("task_state_store")
    record: Any = store.get(STATE_KEY) if store is not None else None
    if not record:
        return Memory()
    memory = Memory.from_json(record)
    is_cleared = bool(memory.jobs) and memory.jobs[0].max_tries != context["ti"].max_tries
    return replace(memory, failed_on=()) if is_cleared else memory


def remember_late(context: Context) -> None:
    """Remember that the task's job was told to stop because its time was up."""
    memory = recall(context)
    _with_current(memory, lambda job: replace(job, stopping=True)).store(context)


def remember_fault(context: Context, conn_id: str, *, lost: bool) -> None:
    """Remember that a cluster failed the attempt.

    :param lost: the cluster has lost the task's job.
    """
    memory = recall(context)
    others = (each for each in memory.failed_on if each != conn_id)
    failed = replace(memory, failed_on=(*others, conn_id))
    _with_current(failed, lambda job: replace(job, lost=job.lost or lost)).store(context)


def _with_current(memory: Memory, change: Callable[[TaskJob], TaskJob]) -> Memory:
    return replace(memory, jobs=(*map(change, memory.jobs[:1]), *memory.jobs[1:]))


def reach(conn_id: str, submission_id: str, nonce: str) -> Target | None:
    """What stops a job, with its connection looked up; None when that does not exist any more, or cannot work."""
    from airflow.sdk.exceptions import AirflowNotFoundException

    from airflow_provider_ray.client.errors import RayConfigError
    from airflow_provider_ray.hooks.ray import RayHook
    from airflow_provider_ray.jobs.stopping import Target

    hook = RayHook(conn_id)
    try:
        hook.get_config()
    except (AirflowNotFoundException, RayConfigError) as error:
        log.warning("Ray job %s of an earlier attempt is out of reach: %s", submission_id, error)
        return None
    return Target(hook, submission_id, nonce)


def reach_all(jobs: Iterable[TaskJob]) -> list[tuple[TaskJob, Target]]:
    """The jobs whose connection exists, with what stops them."""
    return [(job, target) for job in jobs if (target := reach(job.conn_id, job.submission_id, job.nonce))]


def new_job(context: Context, conn_id: str, submission_id: str | None, *, successor: bool) -> TaskJob:
    """A new job; its id is the author's, or a readable name with a random part, since Ray never forgets an id.

    :param submission_id: the author's own choice; a successor of a job under it gets a suffix.
    """
    from airflow_provider_ray.client.api.job_spec import SUBMISSION_ID_LIMIT

    ti = context["ti"]
    nonce = uuid4().hex[:12]
    if not submission_id:
        index = str(ti.map_index) if ti.map_index is not None and ti.map_index >= 0 else ""
        submission_id = "-".join(part for part in (_slug(ti.dag_id), _slug(ti.task_id), index, nonce) if part)
    elif successor:
        submission_id = f"{submission_id[: SUBMISSION_ID_LIMIT - len(nonce) - 1]}-{nonce}"
    return TaskJob(conn_id=conn_id, submission_id=submission_id, nonce=nonce, max_tries=ti.max_tries)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")[:_NAME_LENGTH] or "x"
