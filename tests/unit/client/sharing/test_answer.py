"""The engine for shared, fresh answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.errors import RayClusterUnavailable
from airflow_provider_ray.client.sharing import answer as module
from airflow_provider_ray.client.sharing.answer import SharedAnswer

pytestmark = pytest.mark.anyio


class Clock:
    """Time, and a cluster that takes some of it for each answer, or fails."""

    def __init__(self) -> None:
        self.now = 100.0
        self.takes = 0.0
        self.fails = False
        self.asked = 0

    async def ask(self) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        self.now += self.takes
        if self.fails:
            raise RayClusterUnavailable("GET /", f"failure {self.asked}")
        return self.asked


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "monotonic", lambda: made.now)
    return made


@pytest.fixture
def shared(clock: Clock) -> Callable[..., SharedAnswer[int]]:
    def make(**options: Any) -> SharedAnswer[int]:
        return SharedAnswer(clock.ask, **{"period": 2.0, **options})

    return make


async def test_all_who_ask_meanwhile_or_soon_share_one_answer(
    clock: Clock, shared: Callable[..., SharedAnswer[int]]
) -> None:
    answer = shared()
    assert await asyncio.gather(*(answer.get() for _ in range(50))) == [1] * 50
    clock.now += 1.9
    assert await answer.get() == 1
    clock.now += 0.2
    assert await answer.get() == 2


async def test_giving_up_costs_nobody_else_the_answer(clock: Clock, shared: Callable[..., SharedAnswer[int]]) -> None:
    answer = shared()
    hasty, patient = asyncio.ensure_future(answer.get()), asyncio.ensure_future(answer.get())
    await asyncio.sleep(0)
    hasty.cancel()
    assert await patient == 1
    assert hasty.cancelled()


async def test_an_error_is_shared_and_asking_again_clears_it(
    clock: Clock, shared: Callable[..., SharedAnswer[int]]
) -> None:
    answer = shared()
    clock.fails = True
    errors = await asyncio.gather(answer.get(), answer.get(), return_exceptions=True)
    assert {str(error) for error in errors} == {"GET /: failure 1"}
    assert (answer.value, answer.known_at, str(answer.error), answer.failures) == (None, None, "GET /: failure 1", 1)
    clock.fails = False
    clock.now += 2.1
    assert await answer.get() == 2
    assert (answer.value, answer.known_at, answer.error, answer.failures) == (2, clock.now, None, 0)


@pytest.mark.parametrize(
    ("takes", "longest_pause", "interval"), [(0.1, 60.0, 2.0), (1.0, 60.0, 11.0), (1.0, 5.0, 6.0), (30.0, 5.0, 35.0)]
)
async def test_a_slow_answer_may_use_a_share_of_the_time(
    clock: Clock,
    shared: Callable[..., SharedAnswer[int]],
    takes: float,
    longest_pause: float,
    interval: float,
) -> None:
    answer = shared(longest_pause=longest_pause)
    clock.takes = takes
    await answer.get()
    assert answer.interval == pytest.approx(interval)
    assert answer.overdue(answer.asked_at + interval / 2) == pytest.approx(0.5)
    clock.now = answer.asked_at + interval - 0.01
    await answer.get()
    assert clock.asked == 1
    clock.now += 0.02
    await answer.get()
    assert clock.asked == 2


async def test_a_first_failure_is_soon_tried_again_and_a_second_one_counts(
    clock: Clock, shared: Callable[..., SharedAnswer[int]]
) -> None:
    answer = shared(period=30.0)
    await answer.refresh()
    clock.fails, clock.takes = True, 5.0
    for interval, current in ((pacing.RETRY_SECONDS, 1), (55.0, None), (55.0, None)):
        with pytest.raises(RayClusterUnavailable):
            await answer.refresh()
        assert answer.interval == pytest.approx(interval)
        assert (answer.current, answer.value) == (current, 1)


async def test_what_is_fresh_is_young_and_has_not_failed_since(
    clock: Clock, shared: Callable[..., SharedAnswer[int]]
) -> None:
    answer = shared()
    assert answer.fresh(1.0) is None
    await answer.refresh()
    clock.now += 0.9
    assert answer.fresh(1.0) == 1
    clock.fails = True
    with pytest.raises(RayClusterUnavailable):
        await answer.refresh()
    assert answer.fresh(1.0) is None
    clock.fails = False
    await answer.refresh()
    clock.now += 1.1
    assert answer.fresh(1.0) is None


async def test_an_answer_that_is_not_due_may_be_too_old(clock: Clock, shared: Callable[..., SharedAnswer[int]]) -> None:
    answer = shared()
    assert list(await asyncio.gather(answer.get(), answer.get(within=0.5))) == [1, 1]
    clock.now += 0.4
    assert await answer.get(within=0.5) == 1
    clock.now += 0.2
    assert [await answer.get(), await answer.get(within=0.5), await answer.get()] == [1, 2, 2]
    clock.now += 0.4
    clock.fails = True
    with pytest.raises(RayClusterUnavailable):
        await answer.get(within=0.2)
    clock.fails = False
    # One that failed is not used again.
    assert await answer.get(within=0.5) == 4


async def test_what_has_expired_is_asked_for_at_once(clock: Clock, shared: Callable[..., SharedAnswer[int]]) -> None:
    answer = shared()
    await answer.get()
    answer.expire()
    assert await answer.get() == 2


async def test_closing_ends_a_request(clock: Clock) -> None:
    answer = SharedAnswer[None](asyncio.Event().wait, period=1.0)  # type: ignore[arg-type]
    waiting = asyncio.ensure_future(answer.get())
    await asyncio.sleep(0)
    await answer.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
