"""Submitting a job so that no fault along the way can make it run twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.retry import retrying
from airflow_provider_ray.client.api.runtime_env import with_contents
from airflow_provider_ray.client.errors import (
    RayClusterUnavailable,
    RayConfigError,
    RayJobStopping,
    RayNotADashboard,
    RayNotFound,
    RayRequestRefused,
    RayTriggerError,
)
from airflow_provider_ray.client.jobs.packaging import upload_working_dir

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.job_spec import JobSpec
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.api.ray_client import RayClient

T = TypeVar("T")

PACKAGE_SCHEME = "gcs://"

# Random text in a job's metadata, by which the submitter recognizes its own job.
NONCE_KEY = "airflow_nonce"
# The Airflow that submitted a job; several may share a cluster and have equal Dags, runs and tasks.
INSTALLATION_KEY = "airflow_installation"
# The entries that name the task instance which submitted a job.
IDENTITY_KEYS = (INSTALLATION_KEY, "airflow_dag_id", "airflow_run_id", "airflow_task_id", "airflow_map_index")


async def submit(client: RayClient, spec: JobSpec) -> None:
    """Upload what the job needs and submit it, with a new nonce unless its metadata already has one.

    :raises RayConfigError: when the submission_id belongs to another job, or Ray on the cluster is too old.
    :raises RayRequestError: when the cluster refuses the job, or is unavailable for longer than ``[ray] fault_budget``.
    """
    marked = replace(spec, metadata={NONCE_KEY: uuid4().hex, **spec.metadata})
    await post(client, await prepare(client, marked))


async def prepare(client: RayClient, spec: JobSpec) -> JobSpec:
    """Upload what the job needs and return a spec that can be submitted from any host within the next ten minutes.

    :raises RayConfigError: when the working_dir cannot be packed, a requirements file cannot be read, or Ray on the
        cluster is too old.
    :raises RayRequestError: when the cluster refuses the package, or is unavailable for longer than ``[ray]
        fault_budget``.
    """
    spec = replace(spec, runtime_env=await asyncio.to_thread(with_contents, spec.runtime_env))
    # Asked first, so that nothing is uploaded to an address where something other than Ray answers.
    version = await retrying(client.cluster.version)
    if spec.entrypoint_label_selector and not version.at_least(2, 54):
        expected = f"Ray 2.54 or newer on the cluster, which runs {version.ray_version}"
        raise RayConfigError("entrypoint_label_selector", "a value", expected)
    return replace(spec, runtime_env=await upload_working_dir(client, spec.runtime_env))


async def check_package(client: RayClient, spec: JobSpec) -> None:
    """Make sure that the cluster still has the package that a prepared job needs; asking makes Ray keep it.

    :raises RayTriggerError: when the cluster has forgotten it, and does not have the job yet.
    :raises RayRequestError: when the cluster refuses a request, or is unavailable for longer than ``[ray]
        fault_budget``.
    """
    uri = str(spec.runtime_env.get("working_dir") or "")
    if not uri.startswith(PACKAGE_SCHEME) or await retrying(lambda: client.cluster.has_package(uri)):
        return
    if await find(client, spec.submission_id, spec.metadata[NONCE_KEY]) is None:
        reason = f"was not submitted: its cluster has lost {uri}; another attempt uploads it again"
        raise RayTriggerError(f"Ray job {spec.submission_id!r} {reason}")


async def post(client: RayClient, spec: JobSpec) -> None:
    """Submit a job that has been prepared and has a nonce.

    A failed POST may still have reached Ray: after a timeout, a reset or a duplicate id, the client sees the same 500
    or no answer at all. Looking up the id settles it: a job whose metadata has our nonce is ours.

    :raises RayConfigError: when the submission_id belongs to another job.
    :raises RayJobStopping: when it belongs to an earlier submission of the same task, which has arrived late.
    :raises RayRequestError: when the cluster refuses the job, or is unavailable for longer than ``[ray] fault_budget``.
    """

    async def attempt() -> None:
        try:
            await client.jobs.submit(spec)
        except (RayClusterUnavailable, RayRequestRefused, RayNotADashboard, RayNotFound) as error:
            if await _is_there(client, spec):
                return
            if isinstance(error, RayNotFound):
                # Ray has this route, so a 404 did not come from Ray.
                raise RayNotADashboard.from_message(str(error)) from error
            raise

    await _patiently(attempt, None)


async def find(client: RayClient, submission_id: str, nonce: str) -> JobDetails | None:
    """The job submitted with this nonce; None if the cluster definitely has no such job."""
    job = await look_up(client, submission_id)
    return job if job is not None and has_nonce(job, nonce) else None


async def look_up(client: RayClient, submission_id: str) -> JobDetails | None:
    """The job with this id, no matter who submitted it; None if the cluster definitely has none."""
    try:
        return await get_for_certain(client, submission_id, was_there=True)
    except RayNotFound:
        return None


async def get_for_certain(
    client: RayClient, submission_id: str, *, was_there: bool = False, budget: float | None = None
) -> JobDetails:
    """Details of a job; a single 404 is not proof that the job does not exist.

    A head that is still starting may answer 404 too early, and so may a proxy in front of it.

    :param was_there: a Ray dashboard has answered at this address before. If something else answers now, such as an
        ingress without its backend, that is a transient fault.
    :param budget: seconds for which transient faults are tolerated; default ``[ray] fault_budget``.
    :raises RayNotFound: when the cluster answers 404 twice, and its dashboard answers properly in between.
    """
    ask = _patiently if was_there else retrying
    try:
        return await ask(lambda: client.jobs.get(submission_id), budget)
    except RayNotFound:
        await asyncio.sleep(pacing.SECOND_LOOK_SECONDS)
    await ask(client.cluster.version, budget)
    return await ask(lambda: client.jobs.get(submission_id), budget)


async def _patiently(call: Callable[[], Awaitable[T]], budget: float | None) -> T:
    try:
        return await retrying(call, budget, passing=(RayNotADashboard,))
    except RayNotADashboard as error:
        raise RayClusterUnavailable.from_message(str(error)) from error


def has_nonce(job: JobDetails, nonce: str) -> bool:
    """Whether the job was submitted with this nonce, rather than being another job with the same id."""
    return (job.metadata or {}).get(NONCE_KEY) == nonce


def is_of_task(job: JobDetails, stamps: Mapping[str, Any]) -> bool:
    """Whether this package submitted the job for the task with these entries in its jobs' metadata."""
    metadata = job.metadata or {}
    return NONCE_KEY in metadata and stamps.items() <= metadata.items()


async def _is_there(client: RayClient, spec: JobSpec) -> bool:
    try:
        job = await client.jobs.get(spec.submission_id)
    except RayNotFound:
        return False
    if not has_nonce(job, spec.metadata[NONCE_KEY]):
        if is_of_task(job, {key: spec.metadata.get(key) for key in IDENTITY_KEYS}):
            reason = "is an earlier submission of this task, which has arrived late; the next attempt stops it"
            raise RayJobStopping.from_message(f"Ray job {spec.submission_id!r} {reason}")
        got = f"{spec.submission_id!r}, which another job on this cluster uses"
        raise RayConfigError("submission_id", got, "an id that is not in use")
    return True
