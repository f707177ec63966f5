"""Querying several clusters at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from airflow_provider_ray.client.errors import RayClusterUnavailable, RayError

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.ray_client import RayClient

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """What to ask one cluster.

    :param client: a client of the cluster, not yet opened.
    :param ask: sends the requests.
    :param within: seconds after which the cluster counts as unavailable; None leaves that to the client's timeouts.
    """

    client: RayClient
    ask: Callable[[RayClient], Awaitable[T]]
    within: float | None = None

    async def asking(self) -> T:
        """Open the client, send the requests, and close it."""
        async with self.client as client:
            return await self.ask(client)


async def ask_all(questions: Sequence[Question[T]]) -> list[T | RayError]:
    """The answers, in the order of the questions, or the errors that came instead."""
    return await asyncio.gather(*(answer_of(each.asking(), each.client.config.url, each.within) for each in questions))


async def answer_of(asking: Awaitable[T], url: str, within: float | None) -> T | RayError:
    """What a cluster answers, or the error that came instead.

    :param url: address of the cluster, for the error.
    :param within: see :class:`Question`.
    """
    try:
        async with asyncio.timeout(within):
            return await asking
    except TimeoutError:
        limit = "in time" if within is None else f"within {within:g} s"
        return RayClusterUnavailable(url, f"no complete response {limit}")
    except RayError as error:
        return error
