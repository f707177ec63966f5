"""What Airflow's database knows about a task instance: its Ray job and its picture."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from airflow_provider_ray.compat import database
from airflow_provider_ray.jobs.memory import CONN_ID_KEY, STATE_KEY, SUBMISSION_ID_KEY, stamps
from airflow_provider_ray.links import PICTURE_KEY

PICTURE_LIMIT_BYTES = 8 * 1024 * 1024
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Task:
    """A task instance.

    :param map_index: -1 for a task that is not mapped.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int

    def stamps(self) -> Mapping[str, str]:
        """What the metadata of its jobs says about it."""
        return stamps(self.dag_id, self.run_id, self.task_id, self.map_index)


class TaskJobId(NamedTuple):
    """The job that a task has submitted or waits for.

    :param nonce: text in the metadata of the job, by which its task recognizes it; None if the task does not own it, or
        has forgotten it.
    """

    conn_id: str
    submission_id: str
    nonce: str | None = None


def job_of(task: Task) -> TaskJobId | None:
    """The job that a task has submitted or waits for.

    It comes from what the task remembers of its job, else from its arguments and XComs, else from its return value.
    """
    remembered = _json(database.task_state(STATE_KEY, **asdict(task)))
    given = _json(database.rendered_fields(**asdict(task)))
    if job := _job(remembered) or _job({**given, **_said(task)}):
        return job
    # The return value of a task without a cluster may be large, and is not ours to read.
    return _job(_json(database.stored_xcom("return_value", **asdict(task)))) if "conn_id" in given else None


def _said(task: Task) -> Mapping[str, Any]:
    """What the task has pushed: the cluster that a selector or a list stands for, and the job."""
    stored = {key: _plain(database.stored_xcom(key, **asdict(task))) for key in (CONN_ID_KEY, SUBMISSION_ID_KEY)}
    return {key: value for key, value in stored.items() if value is not None}


def _job(known: Mapping[str, Any]) -> TaskJobId | None:
    conn_id, submission_id, nonce = (known.get(key) for key in ("conn_id", "submission_id", "nonce"))
    if not isinstance(conn_id, str) or not isinstance(submission_id, str):
        return None
    # An argument may also be a selector or a list as text, which no connection id can be.
    if set(conn_id) & set("=,["):
        return None
    return TaskJobId(conn_id, submission_id, nonce if isinstance(nonce, str) else None)


def picture_of(task: Task) -> bytes | str:
    """The PNG of a task, or why there is none."""
    stored = _plain(database.stored_xcom(PICTURE_KEY, **asdict(task)))
    if stored is None:
        return f"This task instance has no XCom {PICTURE_KEY!r}."
    if len(stored) > PICTURE_LIMIT_BYTES * 4 // 3 + 4:
        return f"The XCom {PICTURE_KEY!r} is larger than {PICTURE_LIMIT_BYTES} bytes."
    try:
        picture = base64.b64decode(stored, validate=True)
    except (binascii.Error, ValueError):
        picture = b""
    if not picture.startswith(PNG_SIGNATURE):
        return f"The XCom {PICTURE_KEY!r} is not a base64-encoded PNG; a custom XCom backend may store it elsewhere."
    return picture


def _json(value: Any) -> Mapping[str, Any]:
    parsed = value
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except ValueError:
            return {}
    return parsed if isinstance(parsed, dict) else {}


def _plain(value: Any) -> str | None:
    """A string, stored with or without quotes depending on the writer."""
    if not isinstance(value, str):
        return None
    return value[1:-1] if value[:1] == value[-1:] == '"' and len(value) > 1 else value
