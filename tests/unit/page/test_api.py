"""Who may do what on the page, as far as that can be read off the routes; tests/browser asks a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import HTTPException, Request
from fastapi.routing import APIRoute

from airflow_provider_ray.page.access import requires_own_page
from airflow_provider_ray.page.api import app

JSON = {"content-type": "application/json"}
OWN = {**JSON, "host": "airflow.example"}


def demands(dependant: Any) -> Iterator[str]:
    for each in dependant.dependencies:
        yield getattr(each.call, "__qualname__", "")
        yield from demands(each)


@pytest.mark.parametrize("route", app.routes, ids=lambda route: route.path)
def test_every_route_demands_a_permission_of_airflow(route: Any) -> None:
    assert isinstance(route, APIRoute)
    found = list(demands(route.dependant))
    assert [name for name in found if name.startswith("requires_access_")], found
    assert "get_user" in found


def test_only_a_stop_changes_anything_and_it_wants_to_come_from_the_page() -> None:
    changing = [route for route in app.routes if isinstance(route, APIRoute) and route.methods != {"GET"}]
    (stop,) = changing
    assert stop.methods == {"POST"}
    assert "requires_own_page" in list(demands(stop.dependant))


def ask(headers: dict[str, str], scheme: str = "http") -> int:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "scheme": scheme, "path": "/", "headers": raw, "server": ("127.0.0.1", 80)}
    try:
        requires_own_page(Request(scope))
    except HTTPException as error:
        return error.status_code
    return 200


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({**OWN, "sec-fetch-site": "same-origin"}, 200),
        ({**OWN, "origin": "http://airflow.example"}, 200),
        ({**OWN, "origin": "https://public.example"}, 200),
        ({**OWN, "content-type": "Application/JSON; charset=utf-8", "sec-fetch-site": "same-origin"}, 200),
        (OWN, 403),
        ({**OWN, "sec-fetch-site": "same-site", "origin": "http://airflow.example"}, 403),
        ({**OWN, "sec-fetch-site": "cross-site"}, 403),
        ({**OWN, "sec-fetch-site": "none"}, 403),
        ({**OWN, "origin": "http://evil.example"}, 403),
        ({**OWN, "origin": "https://airflow.example"}, 403),
        ({**OWN, "origin": "http://airflow.example.evil.example"}, 403),
        ({**OWN, "origin": "null"}, 403),
        ({**JSON, "origin": "http://None"}, 403),
        ({"sec-fetch-site": "same-origin"}, 415),
        ({"sec-fetch-site": "same-origin", "content-type": "text/plain"}, 415),
        ({"sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_where_a_stop_may_come_from(headers: dict[str, str], answer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://public.example/airflow")
    assert ask(headers) == answer
