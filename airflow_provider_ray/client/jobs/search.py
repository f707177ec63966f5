"""Searching a cluster for the active jobs of a task, by their metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_ray.client.api.retry import retrying
from airflow_provider_ray.client.errors import RayClusterUnavailable, RayRequestError
from airflow_provider_ray.client.jobs.submission import is_of_task
from airflow_provider_ray.client.states import is_terminal

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.api.ray_client import RayClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What a search has found.

    :param jobs: active jobs with the metadata, and with a nonce: this package submitted them.
    :param session: session of the cluster; None if it was not asked for or has no name.
    """

    jobs: Sequence[JobDetails]
    session: str | None = None


async def search(
    client: RayClient, metadata: Mapping[str, str], *, with_session: bool = False, budget: float | None = None
) -> Searched:
    """Look for active jobs whose metadata contains all of these entries.

    :param with_session: also ask for the name of the session, which costs a request.
    :param budget: seconds for which transient faults are tolerated; default ``[ray] fault_budget``.
    :raises RayRequestError: when the cluster refuses a request, or is unavailable for longer.
    """
    session = (await retrying(client.cluster.version, budget)).session_name if with_session else None
    active = await retrying(lambda: _active(client), budget)
    jobs = [job for job in active if job.submission_id and is_of_task(job, metadata)]
    return Searched(jobs=jobs, session=session)


async def _active(client: RayClient) -> Sequence[JobDetails]:
    try:
        return await client.jobs.active()
    except RayClusterUnavailable:
        raise
    except RayRequestError:
        # A proxy may forbid the state API, whose list is shorter, and let only the Jobs API pass.
        return [job for job in await client.jobs.list() if not is_terminal(job.status)]
