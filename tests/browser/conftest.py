"""A real API server below a path, with clusters that are played, and Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, expect, sync_playwright

from dev.page_site import Site, connected, fifty, site, three
from dev.screenshots import CHROMIUM, FLAGS

PATH = "/team"
PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.full)
            item.add_marker(pytest.mark.timeout(300))


# A list of connections is used again for five seconds, and a page asks every three; on a slow host that is not all.
expect.set_options(timeout=60_000)


@pytest.fixture(scope="package")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("page"), PATH) as started:
        yield started


@pytest.fixture(scope="package")
def sessions(airflow: Site) -> Iterator[dict[str, httpx.Client]]:
    """An HTTP client for each user, and ``anonymous``."""
    url = airflow.stack.url
    made = {name: httpx.Client(base_url=f"{url}/ray", trust_env=False) for name in [*airflow.passwords, "anonymous"]}
    for name, password in airflow.passwords.items():
        answer = made[name].post(f"{url}/auth/token", json={"username": name, "password": password})
        made[name].headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['access_token']}"
    yield made
    for client in made.values():
        client.close()


@pytest.fixture
def clusters(airflow: Site) -> Iterator[Site]:
    """The site with connections of the three clusters."""
    with connected(airflow, three(airflow)):
        yield airflow


@pytest.fixture
def many(airflow: Site) -> Iterator[Site]:
    """The site with connections of fifty clusters, of which five hang."""
    with fifty(airflow) as connections, connected(airflow, connections):
        yield airflow


@dataclass
class Window:
    """A window of a browser, and what went wrong in it."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    here: Page | FrameLocator = field(init=False)

    def __post_init__(self) -> None:
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def go(self, path: str, *, in_frame: bool = False) -> None:
        """Open a page, ours by itself or in the frame that Airflow's UI has for it; ``here`` is then ours."""
        self.page.goto(f"{self.url}{path}", wait_until="domcontentloaded")
        self.here = self.page.frame_locator("iframe") if in_frame else self.page

    def _note(self, message: Any) -> None:
        """The UI itself is not ours, nor is the frame in which it shows the page."""
        where = f"{message.text} {message.location.get('url')}"
        if message.type in ("error", "warning") and "/ray/" in where and not message.text.startswith("An iframe"):
            self.complaints.append(where)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def logged_in(airflow: Site, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Cookies by user."""
    folder = tmp_path_factory.mktemp("cookies")
    for name in ("admin", "viewer"):
        context = browser.new_context()
        answer = context.request.post(
            f"{airflow.stack.url}/auth/token", data={"username": name, "password": airflow.passwords[name]}
        )
        cookie = {"name": "_token", "value": answer.json()["access_token"], "url": f"{airflow.stack.url}/"}
        context.add_cookies([cookie])  # type: ignore[list-item]
        context.storage_state(path=folder / name)
        context.close()
    return {name: folder / name for name in ("admin", "viewer")}


@contextmanager
def opened(browser: Browser, **options: Any) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, **options)
    context.set_default_timeout(PATIENCE_MS)
    try:
        yield context
    finally:
        context.close()


@pytest.fixture(params=["light"])
def window(
    request: pytest.FixtureRequest, airflow: Site, browser: Browser, logged_in: dict[str, Path]
) -> Iterator[Window]:
    """A window of the administrator; in the end nothing may have gone wrong in it."""
    with opened(browser, storage_state=logged_in["admin"], color_scheme=request.param) as context:
        made = Window(context.new_page(), airflow.stack.url)
        yield made
        assert made.complaints == []


@pytest.fixture
def viewers_window(airflow: Site, browser: Browser, logged_in: dict[str, Path]) -> Iterator[Window]:
    """A window of a user who may read Dags and no connections."""
    with opened(browser, storage_state=logged_in["viewer"]) as context:
        yield Window(context.new_page(), airflow.stack.url)
