"""Serve on one cluster for many waits."""

from __future__ import annotations

from collections import Counter
from math import floor
from time import monotonic
from typing import TYPE_CHECKING

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.models import ServeDetails
from airflow_provider_ray.client.api.serve import Routes, Serve
from airflow_provider_ray.client.sharing.answer import SharedAnswer

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.http import Http


class SharedServe(Serve):
    """Serve on one cluster, checked by all waits at the same moments, so that they share every request.

    What a wait needs besides Serve, such as the state of the job that deploys its application, is shared for the same
    reason: all of them ask at about the same time.
    """

    def __init__(self, dashboard: Http, proxy: Http) -> None:
        super().__init__(dashboard, proxy)
        # Due at each of these moments, but only once.
        self._pace = {"period": pacing.SERVE_ROUND_SECONDS / 2, "longest_pause": pacing.LONGEST_PAUSE_SECONDS}
        self._details = SharedAnswer[ServeDetails](super().details, **self._pace)
        self._routes_from = ""
        self._routes: SharedAnswer[Routes] | None = None
        self._turns = Counter[int]()

    async def details(self) -> ServeDetails:
        """Applications and HTTP options; all who ask at about the same time get the same answer."""
        return await self._details.get()

    async def routes(self, base_url: str) -> Routes:
        """Routes that the proxy knows by now; all who ask at about the same time get the same answer."""
        if self._routes is None or self._routes_from != base_url:
            self._routes_from = base_url
            self._routes = SharedAnswer[Routes](lambda: self._ask_for_routes(base_url), **self._pace)
        return await self._routes.get()

    def paced(self, seconds: float) -> float:
        """Seconds until the common moment that is nearest to the end of the pause, but not over yet.

        Everyone gets a turn of their own right after it, since checking for thousands of waits in one go would delay
        everyone else in the event loop.
        """
        now, period = monotonic(), pacing.SERVE_ROUND_SECONDS
        number = max(round((now + seconds) / period), floor(now / period) + 1)
        if number not in self._turns:
            self._turns = Counter({later: turns for later, turns in self._turns.items() if later * period > now})
        self._turns[number] += 1
        return number * period - now + min(self._turns[number] * pacing.SERVE_TURN_SECONDS, period / 4)

    async def close(self) -> None:
        """Stop asking."""
        await self._details.close()
        if self._routes is not None:
            await self._routes.close()
