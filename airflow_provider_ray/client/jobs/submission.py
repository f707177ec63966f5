"""Submitting a job so that no fault on the way can run it twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar
from uuid import uuid4

from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.api.models import JobDetails
from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.api.retry import retrying
from airflow_provider_ray.client.errors import (
    RayClusterUnavailable,
    RayConfigError,
    RayNotADashboard,
    RayNotFound,
    RayRequestRefused,
)
from airflow_provider_ray.client.jobs.packaging import upload_working_dir

T = TypeVar("T")

# Random text in a job's metadata: whoever finds it in a job knows that the job is the one that it submitted.
NONCE_KEY = "airflow_nonce"
SECOND_LOOK_SECONDS = 3.0


async def submit(client: RayClient, spec: JobSpec) -> None:
    """Upload what the job needs and submit it, with a nonce of its own unless its metadata has one.

    :raises RayConfigError: when the submission_id belongs to another job, or the cluster's Ray is too old.
    :raises RayRequestError: when the cluster refuses the job, or is not available for two minutes.
    """
    marked = replace(spec, metadata={NONCE_KEY: uuid4().hex, **spec.metadata})
    await post(client, await prepare(client, marked))


async def prepare(client: RayClient, spec: JobSpec) -> JobSpec:
    """Upload what the job needs and return what can be submitted from anywhere, for the next ten minutes.

    :raises RayConfigError: when the working_dir cannot be packed, or the cluster's Ray is too old.
    :raises RayRequestError: when the cluster refuses the package, or is not available for two minutes.
    """
    # Asked first, so that something else than a Ray dashboard is named before anything is uploaded to it.
    version = await retrying(client.cluster.version)
    if spec.entrypoint_label_selector and not version.at_least(2, 54):
        expected = f"Ray 2.54 or newer on the cluster, which runs {version.ray_version}"
        raise RayConfigError("entrypoint_label_selector", "a value", expected)
    return replace(spec, runtime_env=await upload_working_dir(client, spec.runtime_env))


async def post(client: RayClient, spec: JobSpec) -> None:
    """Submit a job that is prepared and has a nonce.

    A POST that failed may still have reached Ray, which answers time-outs, resets and used ids alike with a 500
    or nothing; asking for the id tells. A job that is there already is ours if its metadata has our nonce.

    :raises RayConfigError: when the submission_id belongs to another job.
    :raises RayRequestError: when the cluster refuses the job, or is not available for two minutes.
    """

    async def attempt() -> None:
        try:
            await client.jobs.submit(spec)
        except (RayClusterUnavailable, RayRequestRefused, RayNotADashboard, RayNotFound) as error:
            if await _is_there(client, spec):
                return
            if isinstance(error, RayNotFound):
                # Ray has this route, so it was not Ray that answered.
                raise RayNotADashboard.from_message(str(error)) from error
            raise

    await _patiently(attempt, None)


async def find(client: RayClient, submission_id: str, nonce: str) -> JobDetails | None:
    """Details of a job that was submitted with this nonce, None when the cluster certainly has no such job."""
    try:
        job = await get_for_certain(client, submission_id, was_there=True)
    except RayNotFound:
        return None
    return job if has_nonce(job, nonce) else None


async def get_for_certain(
    client: RayClient, submission_id: str, *, was_there: bool = False, budget: float | None = None
) -> JobDetails:
    """Details of a job; one 404 does not prove that there is none.

    A head that is just coming up could speak too early, and something in between in its place.

    :param was_there: a Ray dashboard has answered at this address before: something else that answers there now, such
        as an ingress without its backend, is a fault that passes.
    :param budget: seconds for which a transient fault is sat out, two minutes by default.
    :raises RayNotFound: when the cluster says so twice, with a sign of life of the dashboard in between.
    """
    ask = _patiently if was_there else retrying
    try:
        return await ask(lambda: client.jobs.get(submission_id), budget)
    except RayNotFound:
        await asyncio.sleep(SECOND_LOOK_SECONDS)
    await ask(client.cluster.version, budget)
    return await ask(lambda: client.jobs.get(submission_id), budget)


async def _patiently(call: Callable[[], Awaitable[T]], budget: float | None) -> T:
    try:
        return await retrying(call, budget, passing=(RayNotADashboard,))
    except RayNotADashboard as error:
        raise RayClusterUnavailable.from_message(str(error)) from error


def has_nonce(job: JobDetails, nonce: str) -> bool:
    """Whether a job is the one that was submitted with this nonce, and not another one under the same id."""
    return (job.metadata or {}).get(NONCE_KEY) == nonce


async def _is_there(client: RayClient, spec: JobSpec) -> bool:
    try:
        job = await client.jobs.get(spec.submission_id)
    except RayNotFound:
        return False
    if not has_nonce(job, spec.metadata[NONCE_KEY]):
        got = f"{spec.submission_id!r}, which another job on this cluster has"
        raise RayConfigError("submission_id", got, "an id that is not in use")
    return True
