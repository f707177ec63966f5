"""The section [ray] of Airflow's configuration."""

from __future__ import annotations

import pytest

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.hooks import options
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.provider_info import get_provider_info
from tests.fake_dashboard import FakeDashboard

DECLARED = get_provider_info()["config"]["ray"]["options"]


@pytest.fixture(autouse=True)
def not_yet_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_is_applied", False)
    for name in options.OPTIONS.values():
        monkeypatch.setattr(pacing, name, getattr(pacing, name))


def test_the_declared_options_are_those_that_are_read() -> None:
    assert set(DECLARED) == {*options.OPTIONS, "installation"}
    for option, name in options.OPTIONS.items():
        default = getattr(pacing, name)
        assert DECLARED[option]["default"] == str(default)
        assert DECLARED[option]["type"] == {int: "integer", float: "float"}[type(default)]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"CORE__FERNET_KEY": "a"}, "localhost:8080-0a811a56"),
        ({"CORE__FERNET_KEY": "b"}, "localhost:8080-0b8d1807"),
        ({"CORE__FERNET_KEY": "a", "API__PORT": "8181"}, "localhost:8181-0a811a56"),
        ({"CORE__FERNET_KEY": "a", "API__BASE_URL": "http://127.0.0.1:8080"}, "127.0.0.1:8080-0a811a56"),
        ({"CORE__EXECUTION_API_SERVER_URL": "http://api:8080/execution/"}, "api:8080/execution"),
        (
            {"CORE__EXECUTION_API_SERVER_URL": "http://api:8080", "API__BASE_URL": "https://a.example/prod"},
            "a.example/prod",
        ),
        ({"API__BASE_URL": "https://user:very-private@a.example/"}, "a.example"),
        ({"API__BASE_URL": "admin:very-private@a.example:8080/prod"}, "a.example:8080/prod"),
        ({"API__BASE_URL": "//admin:very-private@a.example"}, "a.example"),
        ({"API__BASE_URL": "a.example:8080/prod"}, "a.example:8080/prod"),
        ({"API__BASE_URL": "https://a.example", "RAY__INSTALLATION": " staging "}, "staging"),
    ],
    ids=str,
)
def test_an_airflow_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], name: str) -> None:
    for key, value in given.items():
        monkeypatch.setenv(f"AIRFLOW__{key}", value)
    assert options.installation() == name


@pytest.mark.parametrize("given", ["x" * 201, "a\nb"])
def test_a_name_that_cannot_be_shown_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("AIRFLOW__RAY__INSTALLATION", given)
    with pytest.raises(RayConfigError, match=r"\[ray\] installation: got .*; expected at most 200 printable"):
        options.installation()


@pytest.mark.parametrize("option", options.OPTIONS)
def test_an_option_holds_from_the_first_connection_on(
    dashboard: FakeDashboard, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setenv(f"AIRFLOW__RAY__{option.upper()}", "7")
    RayHook().get_config()
    changed = {name for name in options.OPTIONS.values() if getattr(pacing, name) == 7}
    assert changed == {options.OPTIONS[option]}


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ("fault_budget", "long", "a number of seconds above 0"),
        ("fault_budget", "0", "a number of seconds above 0"),
        ("refresh", "inf", "a number of seconds above 0"),
        ("logs_at_once", "1.5", "a whole number of at least 1"),
        ("log_last_lines", "-1", "a whole number of at least 1"),
    ],
)
def test_a_value_that_cannot_work_is_named(
    dashboard: FakeDashboard, monkeypatch: pytest.MonkeyPatch, option: str, text: str, expected: str
) -> None:
    monkeypatch.setenv(f"AIRFLOW__RAY__{option.upper()}", text)
    with pytest.raises(RayConfigError, match=rf"\[ray\] {option}: got '{text}'; expected {expected}"):
        RayHook().get_config()
    is_well, message = RayHook().test_connection()
    assert not is_well
    assert option in message
