"""Which job belongs to an attempt of a task: a new one, or the one of an earlier attempt.

The id is remembered in the task state store (Airflow 3.3) before the job is submitted, so a crash at any line in
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
    from airflow.sdk import Context

    from airflow_provider_ray.client.models import JobDetails
    from airflow_provider_ray.hooks.ray import RayHook
    from airflow_provider_ray.target import Target

log = logging.getLogger(__name__)

STATE_KEY = "ray_job"
# XCom with the id of the task's current job, there before the job ends: submit.output["submission_id"] in Dags.
SUBMISSION_ID_KEY = "submission_id"
_NAME_LENGTH = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskJob:
    """The job of a task instance, as the task state store holds it.

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

    def remember(self, context: Context) -> None:
        """Store the value; every later attempt of this task instance sees it."""
        store = context.get("task_state_store")
        if store is None:
            log.warning("There is no task state store: a retry will not find Ray job %s", self.submission_id)
        else:
            store.set(STATE_KEY, asdict(self))

    def metadata(self, context: Context) -> dict[str, str]:
        """What is stamped on the job to find its task by; the same for all attempts that go on with it."""
        from airflow_provider_ray.client.submission import NONCE_KEY

        ti = context["ti"]
        return {
            "airflow_dag_id": ti.dag_id,
            "airflow_run_id": ti.run_id,
            "airflow_task_id": ti.task_id,
            "airflow_map_index": str(ti.map_index),
            NONCE_KEY: self.nonce,
        }


def recall(context: Context) -> TaskJob | None:
    """The job that an earlier attempt remembered."""
    store = context.get("task_state_store")
    record: Any = store.get(STATE_KEY) if store is not None else None
    return TaskJob(**record) if record else None


def remember_end(context: Context, *, lost: bool) -> None:
    """Remember that the task's job was told to stop, or is lost."""
    if (job := recall(context)) is not None:
        replace(job, stopping=not lost, lost=lost).remember(context)


def reach(earlier: TaskJob, hook: RayHook) -> Target | None:
    """What an attempt has to stop when it is killed before it goes on with an earlier job, or has replaced it.

    :param hook: the cluster of this attempt, which may be another one.
    :returns: None when the earlier job's connection does not exist any more.
    """
    from airflow.sdk.exceptions import AirflowNotFoundException

    from airflow_provider_ray.target import Target

    earlier_hook = hook if earlier.conn_id == hook.conn_id else type(hook)(earlier.conn_id)
    try:
        earlier_hook.get_config()
    except AirflowNotFoundException as error:
        log.warning("Ray job %s of an earlier attempt is out of reach: %s", earlier.submission_id, error)
        return None
    return Target(earlier_hook, earlier.submission_id, earlier.nonce)


def still_wanted(earlier: TaskJob, target: Target, context: Context, conn_id: str) -> tuple[bool, JobDetails | None]:
    """Whether an attempt goes on with an earlier attempt's job, and what the cluster knows of it.

    An active job is adopted, a succeeded one is the result, and an unknown one was never submitted. The job of a
    cleared task is stopped, and its end awaited, before there can be a new one.

    :param target: what :func:`reach` made of the earlier job.
    :param conn_id: the cluster of this attempt.
    :raises RayJobStopping: when the job of a cleared task was told to stop and has not ended.
    """
    from airflow_provider_ray.client.states import SUCCEEDED, is_terminal
    from airflow_provider_ray.client.submission import find
    from airflow_provider_ray.client.waiting import LOST_STOP_SECONDS

    if earlier.lost:
        # Told to stop once more, if it can be reached now; waiting for its end could be waiting for ever.
        target.stop(log, LOST_STOP_SECONDS)
        return False, None
    known = target.hook.run(lambda client: find(client, earlier.submission_id, earlier.nonce))
    superseded = earlier.conn_id != conn_id or earlier.max_tries != context["ti"].max_tries
    if not superseded and not earlier.stopping:
        return known is None or known.status == SUCCEEDED or not is_terminal(known.status), known
    if known is not None and not is_terminal(known.status):
        _stop(earlier, target.hook)
    return False, None


def new_job(context: Context, conn_id: str, submission_id: str | None, *, successor: bool) -> TaskJob:
    """A new job; its id is the author's, or a readable name with a random part, since Ray never forgets an id.

    :param submission_id: the author's own choice; a successor of a job under it gets a suffix.
    """
    from airflow_provider_ray.client.jobspec import SUBMISSION_ID_LIMIT

    ti = context["ti"]
    nonce = uuid4().hex[:12]
    if not submission_id:
        index = str(ti.map_index) if ti.map_index is not None and ti.map_index >= 0 else ""
        submission_id = "-".join(part for part in (_slug(ti.dag_id), _slug(ti.task_id), index, nonce) if part)
    elif successor:
        submission_id = f"{submission_id[: SUBMISSION_ID_LIMIT - len(nonce) - 1]}-{nonce}"
    return TaskJob(conn_id=conn_id, submission_id=submission_id, nonce=nonce, max_tries=ti.max_tries)


def _stop(earlier: TaskJob, hook: RayHook) -> None:
    from airflow_provider_ray.client.errors import RayJobStopping
    from airflow_provider_ray.client.states import is_terminal
    from airflow_provider_ray.client.waiting import stop_job

    log.info("Stopping Ray job %s of an earlier attempt, which is not to be continued", earlier.submission_id)
    left = hook.run(lambda client: stop_job(client, earlier.submission_id, nonce=earlier.nonce))
    if left is not None and not is_terminal(left.status):
        raise RayJobStopping(earlier.conn_id, left, "was told to stop and has not; the next attempt looks again")


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")[:_NAME_LENGTH] or "x"
