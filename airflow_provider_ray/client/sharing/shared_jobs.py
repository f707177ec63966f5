"""States of many jobs in few requests.

However many jobs are waited for, their cluster is polled in rounds, at most one per second. A wait sleeps until a round
shows something new about its job: waking ten thousand waits every second would keep the event loop, and the garbage
collector behind it, busy with nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.jobs import Jobs, Polls
from airflow_provider_ray.client.api.models import JobDetails
from airflow_provider_ray.client.errors import RayAuthError, RayError
from airflow_provider_ray.client.sharing.answer import SharedAnswer

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.http import Http

log = logging.getLogger(__name__)

_Wanted: TypeAlias = dict[str, list[asyncio.Future[JobDetails]]]


@dataclass(frozen=True, slots=True)
class _Listed:
    """The list of a cluster's jobs, the one answer for searches, single states and waits."""

    jobs: Sequence[JobDetails]
    by_id: Mapping[str, JobDetails]


@dataclass(slots=True, eq=False)
class _Watch:
    """A wait for news of a job.

    :param job: the job as the waiter knows it.
    :param polls: when it is polled.
    :param every_poll: wake the waiter after each poll.
    :param woken: the job as it is known now; None when the waiter has to ask for itself.
    """

    job: JobDetails
    polls: Polls
    every_poll: bool
    woken: asyncio.Future[JobDetails | None]

    @property
    def name(self) -> str:
        """What Ray finds the job by: drivers that did not come through the Jobs API have a job_id only."""
        return self.job.submission_id or str(self.job.job_id)

    def wake(self, job: JobDetails | None) -> None:
        if not self.woken.done():
            self.woken.set_result(job)


class SharedJobs(Jobs):
    """Jobs of one cluster; states requested at about the same time come from the same answer."""

    def __init__(self, http: Http) -> None:
        super().__init__(http)
        self._wanted: _Wanted = {}
        self._watches: set[_Watch] = set()
        self._sooner = asyncio.Event()
        self._sleeping_until = 0.0
        self._gathered_at = 0.0
        self._rounds: asyncio.Task[None] | None = None
        self._next_round = 0.0
        self._get_seconds = 0.005
        self._got_at = 0.0
        pace = {"period": pacing.ROUND_SECONDS, "longest_pause": pacing.LONGEST_PAUSE_SECONDS}
        self._listed = SharedAnswer[_Listed](self._ask_for_list, **pace)
        # Nobody's deadline depends on it, so a slow one may rest longer.
        self._active = SharedAnswer[Sequence[JobDetails]](
            super().active, period=pacing.CAPACITY_SECONDS, longest_pause=pacing.LIST_COST_SECONDS
        )
        self._avoids_lists = False

    async def get(self, submission_id: str) -> JobDetails:
        """Details of one job, from the next round or a list that has just arrived."""
        listed = self._listed.fresh(pacing.FRESH_SECONDS)
        if listed and submission_id in listed.by_id:
            return listed.by_id[submission_id]
        # Everyone gets a future of their own, so that giving up costs nobody else the answer.
        answer: asyncio.Future[JobDetails] = asyncio.get_running_loop().create_future()
        if not self._wanted:
            # The round starts a little later, for those who ask at the same time.
            self._gathered_at = monotonic() + pacing.GATHER_SECONDS
            self._be_awake_at(self._gathered_at)
        self._wanted.setdefault(submission_id, []).append(answer)
        self._start_rounds()
        return await answer

    async def wait_for_news(
        self, job: JobDetails, polls: Polls, within: float, *, every_poll: bool = False
    ) -> JobDetails | None:
        """Sleep until a round shows something new about a job; see :meth:`.Jobs.wait_for_news`."""
        watch = _Watch(job, polls, every_poll, asyncio.get_running_loop().create_future())
        self._watches.add(watch)
        self._be_awake_at(polls.due)
        self._start_rounds()
        try:
            # Unlike a timeout, this keeps what arrives in the same step of the event loop.
            await asyncio.wait([watch.woken], timeout=within)
        finally:
            self._watches.discard(watch)
        return watch.woken.result() if watch.woken.done() else job

    async def list(self) -> Sequence[JobDetails]:
        """Jobs of the cluster; all callers at about the same time get the same answer, which rounds use as well."""
        return (await self._listed.get()).jobs

    async def active(self) -> Sequence[JobDetails]:
        """Jobs that have not ended; a request goes on when those who asked give up, and answers the next ones."""
        return await self._active.get()

    async def close(self) -> None:
        """End the rounds."""
        if self._rounds is not None:
            self._rounds.cancel()
            await asyncio.gather(self._rounds, return_exceptions=True)
        await self._listed.close()
        await self._active.close()

    def _start_rounds(self) -> None:
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._run_rounds())

    def _be_awake_at(self, moment: float) -> None:
        """Have the next round no later than that, unless the last one was less than a second ago."""
        if max(moment, self._next_round) < self._sleeping_until:
            self._sooner.set()

    async def _run_rounds(self) -> None:
        while self._wanted or self._watches:
            await self._sleep_until_due()
            await self._round()

    async def _sleep_until_due(self) -> None:
        while (pause := self._due() - monotonic()) > 0:
            self._sooner.clear()
            self._sleeping_until = monotonic() + pause
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._sooner.wait()

    def _due(self) -> float:
        """When the next round starts (monotonic); now, if nobody wants one any more."""
        moments = [watch.polls.due for watch in self._watches]
        if self._wanted:
            moments.append(self._gathered_at)
        return max(self._next_round, min(moments)) if moments else 0.0

    async def _round(self) -> None:
        wanted = {key: futures for key, futures in self._wanted.items() if any(_unanswered(futures))}
        self._wanted, now = {}, monotonic()
        for watch in self._watches:
            if watch.polls.due <= now:
                wanted.setdefault(watch.name, [])
        self._next_round = now + pacing.ROUND_SECONDS
        try:
            seen = await self._answer(wanted)
        except Exception as error:
            for futures in wanted.values():
                _refuse(futures, error)
            seen = {}
        await self._tell(seen, wanted)

    async def _tell(self, seen: Mapping[str, JobDetails], wanted: Container[str]) -> None:
        """Wake those who wait for news: there is some, or their job could not be seen although a poll was due."""
        woken, now = 0, monotonic()
        for watch in list(self._watches):
            job, is_due = seen.get(watch.name), watch.polls.due <= now
            if job is not None and is_due:
                watch.polls.done()
            if (job == watch.job and not (is_due and watch.every_poll)) or (job is None and watch.name not in wanted):
                continue
            watch.wake(job)
            self._watches.discard(watch)
            woken += 1
            if woken % pacing.WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _answer(self, wanted: _Wanted) -> Mapping[str, JobDetails]:
        """Answer those who asked, and return all jobs that were seen on the way."""
        listed = await self._list() if self._listing_pays(len(wanted)) else {}
        seen = dict(listed)
        for number, (submission_id, futures) in enumerate(wanted.items(), start=1):
            if submission_id in listed:
                job = listed[submission_id]
            else:
                # Only a 404 of its own says that a job is not there.
                try:
                    job = await self._get(submission_id)
                except RayError as error:
                    _refuse(futures, error)
                    # Credentials may be rejected for one job alone.
                    if error.transient and not isinstance(error, RayAuthError):
                        raise
                    continue
                seen[submission_id] = job
            for future in _unanswered(futures):
                future.set_result(job)
            if number % pacing.WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)
        return seen

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

    async def _list(self) -> Mapping[str, JobDetails]:
        self._avoids_lists = False
        try:
            # The request goes on if it takes longer: those who search the list may wait, the others may not.
            async with asyncio.timeout(pacing.LONGEST_PAUSE_SECONDS):
                return (await self._listed.get(within=pacing.FRESH_SECONDS)).by_id
        except TimeoutError:
            self._avoids_lists = True
            return {}
        except RayError as error:
            # Single requests may work where a list does not; if they do not either, they say why.
            log.debug("Cannot list the jobs: %s", error)
            # A list that was refused, or took long to fail, is not tried again for a while.
            self._avoids_lists = not error.transient or self._listed.took >= pacing.ROUND_SECONDS
            return {}
        finally:
            self._next_round = max(self._next_round, self._listed.asked_at + self._listed.interval)

    async def _ask_for_list(self) -> _Listed:
        jobs = await super().list()
        return _Listed(jobs, {job.submission_id: job for job in jobs if job.submission_id})


def _refuse(futures: Iterable[asyncio.Future[JobDetails]], error: Exception) -> None:
    for future in _unanswered(futures):
        future.set_exception(error)
        # Everyone who asked may give up before being woken, and asyncio reports an exception that nobody fetches.
        future.exception()


def _unanswered(futures: Iterable[asyncio.Future[JobDetails]]) -> Iterator[asyncio.Future[JobDetails]]:
    """Those that someone still waits for."""
    return (future for future in futures if not future.done())
