"""Takes screenshots of the page "Ray" for the documentation, with simulated clusters.

Run as ``python -m dev.page_pictures``; starts an Airflow API server and stops it again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dev import demo
from dev.page_site import DAG_ID, Site, connected, fifty, site, three
from dev.screenshots import IMAGES, WIDTH, Camera, camera

if TYPE_CHECKING:
    from playwright.sync_api import FrameLocator

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
# Time until a hanging cluster is recognized as such.
HANGING_MS = 9_000


def main() -> None:
    """Take the screenshots."""
    parser = argparse.ArgumentParser(prog="python -m dev.page_pictures", description=__doc__)
    parser.add_argument("--images", type=Path, default=IMAGES, help=f"folder for the screenshots (default: {IMAGES})")
    images = parser.parse_args().images
    demo.end_on_signals()
    with tempfile.TemporaryDirectory(prefix="page-pictures-") as name, site(Path(name)) as started:
        with connected(started, three(started)):
            for scheme in SCHEMES:
                with camera(started.stack.url, started.stack.password, images, scheme) as taking:
                    _take_three(taking, started, scheme)
        with fifty(started) as connections, connected(started, connections):
            for scheme in SCHEMES:
                with camera(started.stack.url, started.stack.password, images, scheme) as taking:
                    _take_fifty(taking, started, scheme)


def _take_three(taking: Camera, started: Site, scheme: str) -> None:
    frame = _open(taking, f"{started.stack.url}/plugin/ray", 900)
    frame.get_by_role("button", name="gpu_lab", exact=True).click()
    frame.get_by_role("meter", name="fpga").wait_for()
    taking.take(f"page-3-{scheme}", height=800)
    if scheme == "light":
        path = f"dags/{DAG_ID}/runs/{started.run_id}/tasks/train/plugin/ray-jobs"
        frame = _open(taking, f"{started.stack.url}/{path}", 600)
        frame.get_by_text("RUNNING", exact=True).wait_for()
        taking.take("task-tab", height=600)


def _take_fifty(taking: Camera, started: Site, scheme: str) -> None:
    frame = _open(taking, f"{started.stack.url}/plugin/ray", 1300)
    frame.get_by_text("unhealthy ·").wait_for()
    taking.page.wait_for_timeout(HANGING_MS)
    taking.take(f"page-50-{scheme}", height=1300)


def _open(taking: Camera, address: str, height: int) -> FrameLocator:
    taking.page.set_viewport_size({"width": WIDTH, "height": height})
    taking.page.goto(address)
    return taking.page.frame_locator("iframe")


if __name__ == "__main__":
    main()
