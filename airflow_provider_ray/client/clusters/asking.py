"""Asking several clusters at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from airflow_provider_ray.client.api.ray_client import RayClient
from airflow_provider_ray.client.errors import RayClusterUnavailable, RayError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """What one cluster is asked.

    :param client: a client of the cluster that nobody has opened.
    :param ask: what to ask with it.
    :param within: seconds after which no answer is a :class:`RayClusterUnavailable`; None leaves it to the requests.
    """

    client: RayClient
    ask: Callable[[RayClient], Awaitable[T]]
    within: float | None = None

    async def asking(self) -> T:
        """Ask, and close the client."""
        async with self.client as client:
            return await self.ask(client)


async def ask_all(questions: Sequence[Question[T]]) -> list[T | RayError]:
    """The answers in the order of the questions; a :class:`RayError` takes the place of an answer."""
    return await asyncio.gather(*(answer_of(each.asking(), each.client.config.url, each.within) for each in questions))


async def answer_of(asking: Awaitable[T], url: str, within: float | None) -> T | RayError:
    """What a cluster answers, or the fault in place of that.

    :param url: address of the cluster.
    :param within: see :class:`Question`.
    """
    try:
        async with asyncio.timeout(within):
            return await asking
    except TimeoutError:
        limit = "in time" if within is None else f"within {within:g} s"
        return RayClusterUnavailable(url, f"no proper answer {limit}")
    except RayError as error:
        return error
