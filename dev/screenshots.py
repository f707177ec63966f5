"""Takes screenshots of Airflow's UI for the documentation with headless Chromium.

Run as ``python -m dev.screenshots``; starts three clusters and Airflow, and stops them again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, sync_playwright

from dev import demo
from dev.airflow_stack import USER
from dev.run import DAG_ID, Stopwatch, run_dag

IMAGES = demo.ROOT / "docs" / "images"
CHROMIUM = "/usr/bin/chromium"
# Chromium must not look for updates or contact other hosts.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDTH = 1440
MAP_INDEX = 1


class Camera:
    """A browser window in which Airflow's UI is open.

    :param page: the window.
    :param url: address of Airflow.
    :param folder: folder for the screenshots.
    """

    def __init__(self, page: Page, url: str, folder: Path) -> None:
        self.page, self._url, self._folder = page, url, folder

    def log_in(self, password: str) -> None:
        """Log in as ``admin``."""
        self.page.goto(f"{self._url}/auth/login")
        self.page.locator("input[name=username]").fill(USER)
        self.page.locator("input[name=password]").fill(password)
        self.page.locator("button[type=submit]").click()
        self.page.wait_for_url(lambda url: "/auth/login" not in url)

    def take_all(self, run_id: str) -> None:
        """Take all screenshots of a finished run."""
        run = f"/dags/{DAG_ID}/runs/{run_id}"
        mapped = f"{run}/tasks/fan_out.on_cluster.wait/mapped/{MAP_INDEX}"
        self._open(mapped, "Job success:True")
        self.take("task-log")
        self._open(f"{mapped}/details", "Ray job")
        self.take("task-details")
        self._open(f"{run}/tasks/fan_out.merge/xcom", "return_value")
        self.page.get_by_role("button", name="Expand").last.click()
        self.take("xcom")
        self._trigger_form()
        self._connection_form()
        # Once opened, the graph stays visible beside every other page, so it comes last.
        self._graph(run)

    def _open(self, path: str, text: str) -> None:
        """Open a page and wait until it shows the text."""
        self.page.set_viewport_size({"width": WIDTH, "height": 900})
        self.page.goto(f"{self._url}{path}")
        self.page.get_by_text(text).first.wait_for(timeout=60_000)

    def take(self, name: str, height: int = 900) -> None:
        """Take a screenshot of the window."""
        self.page.set_viewport_size({"width": WIDTH, "height": height})
        # Give the layout time to settle after the resize.
        self.page.wait_for_timeout(2000)
        self.page.screenshot(path=self._folder / f"{name}.png", animations="disabled")

    def _graph(self, run: str) -> None:
        self._open(run, "fan_out")
        self.page.get_by_role("button", name="Show Graph").first.click()
        self.page.get_by_role("button", name="Expand all task groups").first.click()
        self.page.get_by_text("RayJobSensor").first.wait_for()
        self.take("graph")

    def _trigger_form(self) -> None:
        self._open(f"/dags/{DAG_ID}", "Trigger")
        self.page.get_by_role("button", name="Trigger").first.click()
        self.page.get_by_text("Clusters").first.wait_for()
        self.take("trigger-form", height=1700)

    def _connection_form(self) -> None:
        """Take the form of a new connection; the form of a stored one shows only the extras that are set."""
        self._open("/connections", "Add Connection")
        self.page.get_by_role("button", name="Add Connection").click()
        self.page.locator("input[name=connection_id]").fill("ray_production")
        self.page.get_by_role("combobox").last.click()
        self.page.get_by_role("combobox").last.fill("Ray")
        self.page.get_by_role("option", name="Ray", exact=True).click()
        self.page.get_by_text("Dashboard address").first.wait_for()
        self.page.get_by_role("button", name="Extra Fields", exact=True).click()
        self.page.get_by_text("Public dashboard address").first.wait_for()
        self.take("connection-form", height=2700)


@contextmanager
def camera(url: str, password: str, folder: Path, scheme: Literal["light", "dark"] = "light") -> Iterator[Camera]:
    """Open a browser and log in to Airflow."""
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme=scheme)
            camera = Camera(page, url, folder)
            camera.log_in(password)
            yield camera
        finally:
            browser.close()


def main() -> int:
    """Run the Dag once in a separate Airflow and take the screenshots."""
    parser = argparse.ArgumentParser(prog="python -m dev.screenshots", description=__doc__)
    parser.add_argument("--images", type=Path, default=IMAGES, help=f"folder for the screenshots (default: {IMAGES})")
    images = parser.parse_args().images
    demo.end_on_signals()
    with tempfile.TemporaryDirectory(prefix="screenshots-") as name:
        directory = Path(name)
        try:
            stack = demo.start(directory, Stopwatch())
            code = run_dag(stack, {}, directory)
            run_id = json.loads((directory / "summary.json").read_text())["run_id"]
            with camera(stack.url, stack.password, images) as taking:
                taking.take_all(run_id)
        finally:
            demo.take_down(directory)
    return code


if __name__ == "__main__":
    sys.exit(main())
