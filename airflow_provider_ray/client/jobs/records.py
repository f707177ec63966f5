"""Deleting old records of jobs: Ray keeps them all, and every list of jobs costs 0.2-0.5 ms for each (Ray 2.60)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.retry import retrying
from airflow_provider_ray.client.errors import RayAnswerTooLarge, RayError, RayNotFound
from airflow_provider_ray.client.jobs.submission import INSTALLATION_KEY, NONCE_KEY
from airflow_provider_ray.client.states import is_terminal

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.api.ray_client import RayClient

log = logging.getLogger(__name__)

SECONDS_PER_DAY = 86_400.0


async def old_records(client: RayClient, older_than: float, installation: str) -> Sequence[JobDetails]:
    """Jobs that an Airflow has submitted with this package and that ended long ago, the oldest first.

    They never include jobs that something else submitted, that have not ended, or whose end time is unknown. If the
    cluster has too many records to list them all, some of the old ones may be missing.

    :param older_than: seconds since the end of the job.
    :param installation: the Airflow.
    :raises RayRequestError: when the cluster refuses, or is unavailable for longer than ``[ray] fault_budget``.
    """
    return (await _listed(client, older_than, installation))[0]


async def delete_records(client: RayClient, jobs: Sequence[JobDetails]) -> int:
    """Delete the records of jobs that have ended, one after another, and return how many there were.

    The logs of the jobs stay on the cluster. Records that were deleted in the meantime do not count.

    :raises RayRequestError: when the cluster refuses, or is unavailable for longer than ``[ray] fault_budget``.
    """
    deleted = 0
    for job in jobs:
        try:
            await _delete(client, str(job.submission_id))
        except RayNotFound:
            continue
        deleted += 1
    return deleted


async def clean(client: RayClient, older_than: float, installation: str) -> int:
    """Delete all old records, see :func:`old_records`, and return how many there were."""
    deleted, seen, is_complete = 0, set[str](), False
    while not is_complete:
        old, is_complete = await _listed(client, older_than, installation)
        # A record that is still listed after its deletion must not keep this going forever.
        found = [job for job in old if str(job.submission_id) not in seen]
        if not found:
            break
        seen.update(str(job.submission_id) for job in found)
        deleted += await delete_records(client, found)
    return deleted


async def _listed(client: RayClient, older_than: float, installation: str) -> tuple[Sequence[JobDetails], bool]:
    """Old records, and whether they are all of them."""
    try:
        jobs, is_complete = await retrying(client.jobs.list), True
    except RayAnswerTooLarge:
        jobs, is_complete = await retrying(lambda: client.jobs.ended(pacing.RECORDS_AT_ONCE)), False
    before_ms = (time() - older_than) * 1000
    old = [job for job in jobs if _is_old(job, before_ms, installation)]
    return sorted(old, key=lambda job: job.end_time_ms or 0), is_complete


@asynccontextmanager
async def retention(client: RayClient, installation: str) -> AsyncIterator[None]:
    """While the block runs, delete the records that are older than the connection's ``job_retention``, now and then.

    Each process does so once an hour per cluster, for at most ``pacing.RECORDS_AT_ONCE`` records. The first hour begins
    with the first block: a process that was not running for days must see what became of its jobs before their records
    are deleted. It delays nothing: when the block ends, the deletion ends; after a fault, the next block tries again.
    """
    days = client.config.job_retention
    if days is None:
        yield
        return
    cleaning = asyncio.create_task(_clean_now_and_then(client, days, installation))
    try:
        yield
    finally:
        cleaning.cancel()
        (fault,) = await asyncio.gather(cleaning, return_exceptions=True)
        if isinstance(fault, Exception):
            log.error("Old records of jobs cannot be deleted", exc_info=fault)


# When this process began to delete records, or waited for the first time, by address (monotonic).
_cleaned_at: dict[str, float] = {}


async def _clean_now_and_then(client: RayClient, days: float, installation: str) -> None:
    url = client.config.url
    _cleaned_at.setdefault(url, monotonic())
    while True:
        pause = _cleaned_at[url] + pacing.RETENTION_SECONDS - monotonic()
        if pause > 0:
            # Another wait may be the first to begin after that.
            await asyncio.sleep(pause)
            continue
        _cleaned_at[url] = monotonic()
        try:
            await _clean_some(client, days, installation)
        except asyncio.CancelledError:
            _cleaned_at[url] = -inf
            raise


async def _clean_some(client: RayClient, days: float, installation: str) -> None:
    try:
        old = await old_records(client, days * SECONDS_PER_DAY, installation)
        deleted = await delete_records(client, old[: pacing.RECORDS_AT_ONCE])
    except RayError as error:
        log.warning("Old records of jobs cannot be deleted: %s", error)
        return
    if deleted:
        log.info("Deleted %d records of jobs that ended more than %g days ago", deleted, days)


async def _delete(client: RayClient, submission_id: str) -> None:
    await retrying(lambda: client.jobs.delete(submission_id))


def _is_old(job: JobDetails, before_ms: float, installation: str) -> bool:
    metadata = job.metadata or {}
    is_ours = bool(job.submission_id) and NONCE_KEY in metadata and metadata.get(INSTALLATION_KEY) == installation
    return is_ours and is_terminal(job.status) and job.end_time_ms is not None and job.end_time_ms < before_ms
