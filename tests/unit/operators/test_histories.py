"""Random histories of one task: deaths at every step, outages, cut and late submissions, kills, clears, wiped stores.

Whatever happens, no job of the task is left active once an attempt has ended well, and on one cluster no two of them
are ever active at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, TaskDeferred

from airflow_provider_ray.client import errors, pacing, sync
from airflow_provider_ray.operators.job import RaySubmitJobOperator
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.conftest import Attempts, Store, connect
from tests.unit.deferral import first_event, rebuilt

LATEST = 1.0  # seconds by which a submission arrives late
LONGEST = 1.2  # seconds of one step of an attempt: some jobs never end
PACING = {
    "FAULT_BUDGET_SECONDS": 0.2,
    "FIRST_PAUSE_SECONDS": 0.05,
    "SECOND_LOOK_SECONDS": 0.05,
    "STOP_LOOK_SECONDS": 0.05,
    "EARLIER_JOBS_SECONDS": 0.5,
    "HICCUP_SECONDS": 0.1,
    "STOP_CONFIRM_SECONDS": 1.0,
    "LOST_STOP_SECONDS": 0.5,
    "LAST_STOP_SECONDS": 0.5,
    "TASK_KILL_SECONDS": 0.5,
    "TRIGGER_KILL_SECONDS": 2.0,
    "LOG_LAST_WORDS_SECONDS": 0.1,
    "LOG_DRAIN_SECONDS": 0.1,
    "EARLIEST_EVENT_SECONDS": 0.0,
}


# A process that dies closes nothing.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

log = logging.getLogger(__name__)
clocks = threading.local()


class Died(BaseException):
    """The process of the task, at this line."""


class Clock:
    """Lets the process of a task die before, during or after its n-th step."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.left: int | None = None
        self.longest = LONGEST

    def set(self, steps: int | None) -> None:
        self.left = steps

    def tick(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = -1
                raise Died

    def run(self, original: Any, function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        self.tick()
        within = self.longest
        if self.left == 0:
            within, self.left = self._chance.choice([0.01, 0.05, 0.2, 0.6]), -1

        async def cut_short() -> Any:
            try:
                async with asyncio.timeout(within):
                    return await function()
            except TimeoutError:
                raise Died from None

        result = original(cut_short)
        self.tick()
        return result


class MortalStore(Store):
    """A task state store whose requests are steps."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def set(self, key: str, value: Any) -> None:
        self._clock.tick()
        super().set(key, value)
        self._clock.tick()

    def get(self, key: str, default: Any = None) -> Any:
        self._clock.tick()
        return super().get(key, default)


class History:
    """One task instance and its clusters."""

    def __init__(self, seed: int, fakes: dict[str, FakeDashboard]) -> None:
        self.seed, self.chance = seed, random.Random(seed)
        self.fakes = fakes
        self.events: list[str] = []
        self.clock = Clock(self.chance)
        self.attempts = Attempts()
        self.attempts.store = MortalStore(self.clock)
        self.try_number, self.max_tries = 0, 3
        self.late_until = 0.0
        self.timeout: float | None = None
        # A submission on its way that nobody remembers can only be stopped once it has arrived.
        self.is_blind = False
        self.durable = self.chance.random() < 0.85
        self.cancel_on_kill = self.chance.random() < 0.8
        clocks.of_thread = self.clock

    def note(self, event: str) -> None:
        self.events.append(event)

    def operator(self, deferrable: bool) -> RaySubmitJobOperator:
        return RaySubmitJobOperator(
            task_id="submit",
            conn_id=list(self.fakes),
            entrypoint="true",
            poll_interval=0.1,
            deferrable=deferrable,
            durable=self.durable,
            cancel_on_kill=self.cancel_on_kill,
            timeout=self.timeout,
            fetch_logs=False,
        )

    def play(self) -> None:
        for _ in range(self.chance.randint(2, 5)):
            self.between_attempts()
            self.disturb()
            self.attempt()
            self.heal()
        self.end()

    def between_attempts(self) -> None:
        """What a user, or a wipe of the store, does to the task."""
        event = self.chance.choices(["retry", "clear", "wipe", "anew"], [5, 3, 2, 1])[0]
        if self.try_number > self.max_tries and event in ("retry", "wipe"):
            event = "clear"
        if event == "clear":
            self.max_tries = self.try_number + 3
        if event in ("wipe", "anew"):
            self.forget()
        if event == "anew":
            self.try_number, self.max_tries = 0, 3
        self.note(event)

    def forget(self) -> None:
        self.attempts.store.clear()
        if time.monotonic() < self.late_until:
            self.is_blind = True

    def disturb(self) -> None:
        """What the clusters do to the next attempt."""
        for fake in self.fakes.values():
            ends_after = self.chance.choice([0.0, 0.2, 0.6, None])
            status = self.chance.choice(["SUCCEEDED", "SUCCEEDED", "FAILED"])
            fake.default_outcome = Outcome(
                ends_after=ends_after, status=status, stop_after=self.chance.choice([0, 0.3])
            )
            # A first attempt goes on although it could not search.
            if self.try_number > 0 and self.chance.random() < 0.3:
                kind: Any = self.chance.choice(["close", 503, 500])
                self.note(f"outage {kind}")
                fake.fail(kind, times=self.chance.choice([1, 3, 10, 40]))
            self.spoil_submission(fake)

    def spoil_submission(self, fake: FakeDashboard) -> None:
        event = self.chance.choices(["well", "cut", "refused", "late"], [6, 2, 1, 5])[0]
        if event == "cut":
            fake.fail("close", method="POST", path="/api/jobs/", handled=True, times=1)
        if event == "refused":
            fake.fail(400, method="POST", path="/api/jobs/", times=1)
        if event == "late":
            late = self.chance.uniform(0.4, LATEST)
            fake.fail("close", method="POST", path="/api/jobs/", late=late, times=1)
            fake.fail("close", method="POST", path="/api/jobs/", times=self.chance.choice([0, 20, 20]))
        if event != "well":
            self.note(f"submission {event}")

    def heal(self) -> None:
        self.clock.set(None)
        for fake in self.fakes.values():
            if any(fault.late and not fault.times for fault in fake.faults):
                # It is on its way since some moment before now.
                self.late_until = time.monotonic() + LATEST
                self.is_blind = self.is_blind or not self.durable
            fake.faults.clear()

    def attempt(self) -> bool:
        """One attempt; whether it ended well."""
        self.try_number += 1
        self.timeout = self.chance.choice([None, 0.6])
        deferrable, task = self.chance.random() < 0.5, None
        context = self.attempts.context(try_number=self.try_number, max_tries=self.max_tries)
        context["ti"].xcom_push = lambda key, value: self.clock.tick()
        task = self.operator(deferrable)
        if self.chance.random() < 0.4:
            self.clock.set(self.chance.randint(0, 12))
        killer = self.killer(task)
        try:
            self.phases(task, context)
        except Died:
            self.note(f"{self.try_number}: died")
            # The killer's work dies with the process; its requests were a step as well.
        except (errors.RayError, AirflowException, RuntimeError) as error:
            self.note(f"{self.try_number}: {type(error).__name__} {str(error)[:80]}")
        else:
            self.note(f"{self.try_number}: success")
            return True
        finally:
            killer.join()
        return False

    def killer(self, task: RaySubmitJobOperator) -> threading.Thread:
        """A kill of the task while it holds a worker."""
        is_killed, after = self.chance.random() < 0.15, self.chance.uniform(0, 1)

        def kill() -> None:
            if is_killed:
                time.sleep(after)
                self.note(f"{self.try_number}: kill")
                with contextlib.suppress(Died):
                    task.on_kill()

        thread = threading.Thread(target=kill)
        thread.start()
        return thread

    def phases(self, task: RaySubmitJobOperator, context: Any) -> None:
        """What Airflow runs: the worker, and after a deferral the triggerer and a worker again."""
        step: Callable[[], Any] = partial(task.execute, context)
        while True:
            try:
                step()
            except TaskDeferred as deferred:
                self.clock.set(None)
                event = self.in_triggerer(deferred)
                task = self.operator(deferrable=True)
                if event is None:
                    raise Died from None
                if event == "failed":
                    self.note("trigger failed")
                    step = partial(task.resume_execution, "__fail__", {"error": "the trigger failed"}, context)
                else:
                    step = partial(task.execute_complete, context, event)
            else:
                return

    def in_triggerer(self, deferred: TaskDeferred) -> Any:
        """The trigger's event; None if the task was killed, "failed" if the trigger ended without an event."""
        fate = self.chance.choices(["well", "restarted", "killed", "failed"], [6, 2, 1, 1])[0]
        if fate == "restarted":
            self.note("triggerer died")
            asyncio.run(self.watch(rebuilt(deferred.trigger), self.chance.uniform(0, 0.5)))
        if fate in ("killed", "failed"):
            trigger = rebuilt(deferred.trigger)
            self.note(f"trigger {fate}")
            event = asyncio.run(self.watch(trigger, self.chance.uniform(0, 0.5), kill=fate == "killed"))
            return event if fate == "killed" else "failed"
        return asyncio.run(self.watch(rebuilt(deferred.trigger), LONGEST, kill=True))

    async def watch(self, trigger: Any, seconds: float, *, kill: bool = False) -> Any:
        """Run a trigger until its event, for some time at most; then it is killed, or its triggerer is."""
        trigger.task_instance = None
        watching = asyncio.create_task(first_event(trigger))
        await asyncio.wait({watching}, timeout=seconds)
        if watching.done():
            return watching.result()
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        if kill:
            self.note("killed in the triggerer")
            await trigger.on_kill()
        return None

    def end(self) -> None:
        """Clear the task and let it end well, also once everything that was on its way has arrived."""
        self.finish(ends_after=0.8)
        time.sleep(max(self.late_until - time.monotonic(), 0))
        self.finish(ends_after=0.1)

    def finish(self, ends_after: float) -> None:
        self.clock.set(None)
        self.clock.longest, self.timeout = 30.0, None
        for fake in self.fakes.values():
            fake.default_outcome = Outcome(ends_after=ends_after)
        self.note("clear")
        self.max_tries = self.try_number + 9
        for _ in range(6):
            self.try_number += 1
            context = self.attempts.context(try_number=self.try_number, max_tries=self.max_tries)
            try:
                self.phases(self.operator(deferrable=False), context)
            except (errors.RayError, AirflowException) as error:
                self.note(f"end: {type(error).__name__} {str(error)[:80]}")
            else:
                return
        raise AssertionError(f"the task does not end well any more\n{self.told()}")

    def told(self) -> str:
        """What happened, and how to repeat it."""
        return "\n".join([f"RAY_HISTORY_SEED={self.seed}", *self.events])

    def active(self) -> list[str]:
        jobs = [(name, job) for fake in self.fakes.values() for name, job in fake.jobs.items()]
        return [name for name, job in jobs if job.status in ("PENDING", "RUNNING")]

    def doubles(self) -> list[tuple[str, str]]:
        """Pairs of jobs that were active at the same time."""
        (fake,) = self.fakes.values()
        spans = sorted((job.submitted, _end_of(job), name) for name, job in fake.jobs.items())
        return [(one[2], two[2]) for one, two in itertools.pairwise(spans) if two[0] < one[1]]


def _end_of(job: Any) -> float:
    by_itself = None if job.outcome.ends_after is None else job.submitted + job.outcome.ends_after
    return min((each for each in (by_itself, job.stopped) if each is not None), default=float("inf"))


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short pauses, and a clock for each history; a kill comes from another thread and has none."""
    for name, seconds in PACING.items():
        monkeypatch.setattr(pacing, name, seconds)
    original = sync.run_sync

    def run_sync(function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        clock = getattr(clocks, "of_thread", None)
        return original(function) if clock is None else clock.run(original, function)

    monkeypatch.setattr(sync, "run_sync", run_sync)
    yield
    gc.collect()


def play_for(seconds: float, at_once: int) -> None:
    """Play histories, some at the same time, until the time is up; ``RAY_HISTORY_SEED`` repeats a single one."""
    given = os.environ.get("RAY_HISTORY_SEED")
    if given:
        play(int(given))
        return
    deadline = time.monotonic() + seconds

    def play_some() -> int:
        played = 0
        while time.monotonic() < deadline:
            play(random.SystemRandom().randrange(2**32))
            played += 1
        return played

    with ThreadPoolExecutor(at_once) as pool:
        playing = [pool.submit(play_some) for _ in range(at_once)]
    log.warning("%s histories", sum(each.result() for each in playing))


def play(seed: int) -> None:
    log.warning("RAY_HISTORY_SEED=%s", seed)
    with contextlib.ExitStack() as stack:
        monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
        names = [f"h{seed}a"] if seed % 3 else [f"h{seed}a", f"h{seed}b"]
        fakes = {name: stack.enter_context(FakeDashboard()) for name in names}
        for name, fake in fakes.items():
            connect(monkeypatch, name, fake)
        history = History(seed, fakes)
        history.play()
        assert not history.active(), f"left active: {history.active()}\n{history.told()}"
        if len(fakes) == 1 and not history.is_blind:
            assert not history.doubles(), f"active at the same time: {history.doubles()}\n{history.told()}"


def test_no_history_leaves_a_job_behind_or_runs_two_at_once(mortal: None) -> None:
    play_for(10, at_once=4)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_no_history_does_so_in_minutes_either(mortal: None) -> None:
    play_for(120, at_once=12)
