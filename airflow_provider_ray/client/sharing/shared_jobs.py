"""States of many jobs in few requests.

However many jobs are waited for, their cluster is asked in rounds, one a second at most, and every wait gets the state
of its job from the next round.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import TypeAlias

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.http import Http
from airflow_provider_ray.client.api.jobs import Jobs
from airflow_provider_ray.client.api.models import JobDetails
from airflow_provider_ray.client.errors import RayError
from airflow_provider_ray.client.sharing.answer import SharedAnswer

log = logging.getLogger(__name__)

_Wanted: TypeAlias = dict[str, list[asyncio.Future[JobDetails]]]


class SharedJobs(Jobs):
    """Jobs of one cluster; states that are asked for at about the same time come from the same answer."""

    def __init__(self, http: Http) -> None:
        super().__init__(http)
        self._wanted: _Wanted = {}
        self._rounds: asyncio.Task[None] | None = None
        self._next_round = 0.0
        self._get_seconds = 0.005
        self._got_at = 0.0
        pace = {"period": pacing.ROUND_SECONDS, "longest_pause": pacing.LONGEST_PAUSE_SECONDS}
        self._all = SharedAnswer[Sequence[JobDetails]](super().list, **pace)
        self._listed = SharedAnswer[Mapping[str, JobDetails]](self._pick, **pace)
        self._picked: Container[str] = ()
        self._avoids_lists = False

    async def get(self, submission_id: str) -> JobDetails:
        """Details of one job, from the next round or the one that has just been."""
        listed = self._listed.fresh(pacing.FRESH_SECONDS)
        if listed and submission_id in listed:
            return listed[submission_id]
        # Everyone gets a future of their own, so that giving up costs nobody else the answer.
        answer: asyncio.Future[JobDetails] = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(submission_id, []).append(answer)
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._run_rounds())
        return await answer

    async def list(self) -> Sequence[JobDetails]:
        """Jobs of the cluster; all who ask at about the same time get the same answer."""
        return await self._all.get()

    async def close(self) -> None:
        """End the rounds."""
        await self._all.close()
        if self._rounds is not None:
            self._rounds.cancel()
            await asyncio.gather(self._rounds, return_exceptions=True)

    async def _run_rounds(self) -> None:
        while self._wanted:
            await asyncio.sleep(max(self._next_round - monotonic(), pacing.GATHER_SECONDS))
            await self._round()

    async def _round(self) -> None:
        wanted = {key: futures for key, futures in self._wanted.items() if any(_unanswered(futures))}
        self._wanted = {}
        self._next_round = monotonic() + pacing.ROUND_SECONDS
        try:
            await self._answer(wanted)
        except Exception as error:
            for futures in wanted.values():
                _refuse(futures, error)

    async def _answer(self, wanted: _Wanted) -> None:
        listed = await self._list(wanted) if self._listing_pays(len(wanted)) else {}
        for number, (submission_id, futures) in enumerate(wanted.items(), start=1):
            if not any(_unanswered(futures)):
                continue
            if submission_id in listed:
                job = listed[submission_id]
            else:
                # Only a 404 of its own says that a job is not there.
                try:
                    job = await self._get(submission_id)
                except RayError as error:
                    _refuse(futures, error)
                    if error.transient:
                        raise
                    continue
            for future in _unanswered(futures):
                future.set_result(job)
            if number % pacing.WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _listing_pays(self, number: int) -> bool:
        """Whether lists keep the cluster busy for a smaller share of the time than one request per job would.

        The calculation assumes that everyone who asks now asks every second, as waits do in their first minute. Later
        on, single requests might be cheaper than the list, but the list is read no more often than its pause allows.
        """
        listed = self._listed
        is_remembered = monotonic() - self._listed_at <= pacing.LIST_COST_SECONDS
        if number < pacing.LIST_FROM or (is_remembered and self._avoids_lists):
            return False
        share = listed.took / listed.interval if is_remembered and listed.error is None else 0.0
        return share <= number * self._get_seconds / pacing.ROUND_SECONDS

    @property
    def _listed_at(self) -> float:
        return self._listed.asked_at + self._listed.took

    async def _get(self, submission_id: str) -> JobDetails:
        started = monotonic()
        try:
            job = await super().get(submission_id)
        except RayError as error:
            if not error.transient:
                self._got_at = monotonic()
            elif self._got_at < self._listed_at:
                # Nothing has been answered since the list failed, so the list was not to blame.
                self._avoids_lists = False
            raise
        self._got_at = monotonic()
        self._get_seconds += 0.2 * (self._got_at - started - self._get_seconds)
        return job

    async def _list(self, wanted: Container[str]) -> Mapping[str, JobDetails]:
        self._picked, self._avoids_lists = wanted, False
        try:
            return await self._listed.refresh()
        except RayError as error:
            # Single requests may work where a list does not; if they do not either, they say why.
            log.debug("The jobs cannot be listed now: %s", error)
            # A list that was refused, or took long to fail, is not tried again for a while.
            self._avoids_lists = not error.transient or self._listed.took >= pacing.ROUND_SECONDS
            return {}
        finally:
            self._next_round = max(self._next_round, self._listed.asked_at + self._listed.interval)

    async def _pick(self) -> Mapping[str, JobDetails]:
        return await self.pick(self._picked, self._listed.value or {})


def _refuse(futures: Iterable[asyncio.Future[JobDetails]], error: Exception) -> None:
    for future in _unanswered(futures):
        future.set_exception(error)
        # Everyone who asked may give up before being woken, and asyncio reports an exception that nobody fetches.
        future.exception()


def _unanswered(futures: Iterable[asyncio.Future[JobDetails]]) -> Iterator[asyncio.Future[JobDetails]]:
    """Those that someone still waits for."""
    return (future for future in futures if not future.done())
