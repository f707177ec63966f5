"""What the docs show works: each Python snippet runs as it stands, and each link leads somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from airflow.sdk import DAG

from tests.fake_dashboard import FakeDashboard
from tests.snippets import PAGES, ROOT, Snippet, snippets

# Starts real clusters; tests/ray runs it.
STARTS_RAY = "local_clusters("
SNIPPETS = [each for each in snippets() if STARTS_RAY not in each.code]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.place)
def test_a_snippet_can_be_pasted_into_a_dag_file(
    snippet: Snippet, fake: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = json.dumps({"conn_type": "ray", "host": fake.url})
    for name in ("RAY_LAB", "RAY_HPC", "RAY_CLOUD"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", connection)
    with DAG("docs", schedule=None):
        exec(compile(snippet.code, snippet.place, "exec"), {"__name__": "docs"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(found), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
