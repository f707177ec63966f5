"""What a browser receives about a cluster: no more than the page shows.

For a job, this includes its id, state and times, and the task that it belongs to if the user may read that Dag. It
never includes the entrypoint, env_vars, other metadata or Ray's message, which contain parameters and the end of the
log. Messages from Serve are left out as well, and faults are described only in our own words.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, overload

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_ray.client import fault_words
from airflow_provider_ray.client.api.capacity import count_jobs, free_of, total_of
from airflow_provider_ray.client.errors import RayAnswerTooLarge, RayError
from airflow_provider_ray.client.jobs.submission import INSTALLATION_KEY, has_nonce
from airflow_provider_ray.hooks import options

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.sharing.answer import SharedAnswer
    from airflow_provider_ray.page.cluster_watch import ClusterWatch
    from airflow_provider_ray.page.task import Task

JOBS_SHOWN = 50
APPLICATIONS_SHOWN = 200
RESOURCES_SHOWN = 100
# Characters; ids and names as Ray makes and stores them are shorter.
SHOWN_LENGTH = 300
FIRST = ("CPU", "GPU", "memory")
_KIND = re.compile(r"[A-Z_]{1,60}")


def stamped_dags(watches: Collection[ClusterWatch]) -> set[str]:
    """Dags that the jobs on the page say they belong to."""
    jobs = (job for watch in watches for job in _newest(watch)[:JOBS_SHOWN])
    return {dag_id for job in jobs if (dag_id := _own_metadata(job).get("airflow_dag_id"))}


def cluster_answer(watch: ClusterWatch, *, may_stop: bool, dags: Collection[str]) -> dict[str, Any]:
    """Everything shown about a cluster to a user who may read its connection.

    :param may_stop: whether the user may stop its jobs.
    :param dags: Dags that the user may read.
    """
    jobs = _newest(watch)
    is_known = watch.jobs.current is not None
    running, pending = count_jobs(jobs) if is_known else (None, None)
    return {
        **_summary(watch),
        "reason": None if (fault := watch.fault) is None else fault_in_words(fault),
        "dashboard": watch.config and (watch.config.public_url or watch.config.url),
        "labels": dict(watch.config.labels) if watch.config else {},
        "ray_version": watch.version.value and _short(watch.version.value.ray_version),
        "nodes": _nodes(watch),
        "resources": list(_resources(watch)),
        "demands": watch.usage.current and watch.usage.current.pending_demands,
        "usage_fault": _fault(watch.usage),
        "running": running,
        "pending": pending,
        "active": len(jobs) if is_known else None,
        "jobs": [_job(job, watch, dags) for job in jobs[:JOBS_SHOWN]],
        "jobs_fault": None if watch.jobs.error is None else _jobs_fault(watch.jobs.error),
        "jobs_seen": _age(watch.jobs.known_at),
        "applications": _applications(watch),
        "serve_fault": _fault(watch.serve),
        "may_stop": may_stop,
    }


def task_answer(
    watch: ClusterWatch, task: Task, submission_id: str, *, nonce: str | None = None, may_stop: bool
) -> dict[str, Any]:
    """What is shown about a cluster to a user who may read a task that uses it: its health, and the jobs of the task.

    :param submission_id: the job that the task submitted last, or waits for.
    :param nonce: text in the metadata of the job that the task submitted; another job with this id is not shown.
    """
    stamps = task.stamps().items()

    def is_meant(job: JobDetails) -> bool:
        return job.submission_id == submission_id and (nonce is None or has_nonce(job, nonce))

    active = [job for job in watch.jobs.current or () if is_meant(job) or stamps <= (job.metadata or {}).items()]
    jobs = {job.submission_id or job.job_id: job for job in active}
    single = watch.single.get(submission_id)
    if single is not None and single.value is not None and is_meant(single.value):
        jobs.setdefault(submission_id, single.value)
    is_missing = single is not None and single.known_at is not None and submission_id not in jobs
    return {
        **_summary(watch),
        "jobs": [_job(job, watch, {task.dag_id}) for job in jobs.values()],
        "missing": submission_id if is_missing else None,
        "may_stop": may_stop,
    }


def fault_in_words(error: Exception) -> str:
    """A fault in words for a browser, none of which come from a cluster."""
    if isinstance(error, RayError | TimeoutError):
        return fault_words.in_words(error)
    if isinstance(error, AirflowNotFoundException):
        return "the API server cannot find the connection"
    return f"unexpected {type(error).__name__}; see the API server's log"


def _newest(watch: ClusterWatch) -> Sequence[JobDetails]:
    """Its active jobs, the newest first."""
    return sorted(watch.jobs.current or (), key=lambda job: -(job.start_time_ms or 0))


def _summary(watch: ClusterWatch) -> dict[str, Any]:
    is_known = watch.version.value is not None and watch.nodes.value is not None
    health = "unhealthy" if watch.fault else "healthy" if is_known else "unknown"
    return {"conn_id": watch.conn_id, "health": health, "seen": _age(watch.answered_at)}


def _fault(answer: SharedAnswer[Any]) -> str | None:
    return None if answer.error is None else fault_in_words(answer.error)


def _jobs_fault(error: Exception) -> str:
    is_hinted = isinstance(error, TimeoutError | RayAnswerTooLarge)
    return f"{fault_in_words(error)}; {fault_words.MANY_RECORDS}" if is_hinted else fault_in_words(error)


def _age(moment: float | None) -> float | None:
    return None if moment is None else round(monotonic() - moment, 1)


def _nodes(watch: ClusterWatch) -> dict[str, int] | None:
    if watch.nodes.value is None:
        return None
    return {"alive": sum(node.is_alive for node in watch.nodes.value), "total": len(watch.nodes.value)}


def _resources(watch: ClusterWatch) -> Iterator[dict[str, Any]]:
    """Used and total of each resource, the usual ones first; used is None if it is unknown."""
    total = total_of(watch.nodes.value or ())
    free = free_of(total, watch.usage.current) or {}
    names = sorted(total, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    for name in names[:RESOURCES_SHOWN]:
        used = round(total[name] - free[name], 4) if name in free else None
        yield {"name": _short(name), "used": used, "total": total[name]}


def _job(job: JobDetails, watch: ClusterWatch, dags: Collection[str]) -> dict[str, Any]:
    name = job.submission_id or job.job_id
    return {
        "submission_id": _short(job.submission_id),
        "job_id": _short(job.job_id),
        "status": _short(job.status),
        "started_ms": job.start_time_ms,
        "ended_ms": job.end_time_ms,
        "exit_code": job.driver_exit_code,
        "error_type": job.error_type if job.error_type and _KIND.fullmatch(job.error_type) else None,
        "task": _task(_own_metadata(job), dags),
        "url": watch.config.job_url(_short(name)) if watch.config and name else None,
    }


def _task(metadata: Mapping[str, str], dags: Collection[str]) -> dict[str, str | None] | None:
    keys = ("dag_id", "run_id", "task_id", "map_index")
    stamps = {key: _short(metadata.get(f"airflow_{key}")) for key in keys}
    return stamps if stamps["dag_id"] in dags and stamps["run_id"] and stamps["task_id"] else None


def _own_metadata(job: JobDetails) -> Mapping[str, str]:
    """The metadata of a job that this Airflow submitted; nothing else says which of its tasks a job belongs to."""
    metadata = job.metadata or {}
    return metadata if metadata.get(INSTALLATION_KEY) == options.installation() else {}


def _applications(watch: ClusterWatch) -> list[dict[str, str | None]] | None:
    if watch.serve.current is None:
        return None
    applications = sorted(watch.serve.current.applications.values(), key=lambda each: each.name)
    return [
        {"name": _short(each.name), "status": _short(each.status), "route": _short(each.route_prefix)}
        for each in applications[:APPLICATIONS_SHOWN]
    ]


@overload
def _short(text: str) -> str: ...


@overload
def _short(text: str | None) -> str | None: ...


def _short(text: str | None) -> str | None:
    """A cluster's text, no longer than it may be on a page."""
    return text if text is None or len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…"
