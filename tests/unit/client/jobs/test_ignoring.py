"""Patterns of ignore files, compared with git itself."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from airflow_provider_ray.client.jobs.ignoring import Pattern, is_ignored, read_patterns

FILES = ["a", "b", "ab", "a.py", "b.txt", "x y", "[z]", "c#", "!n"]
FOLDERS = ["a", "b", "ab", "x y", "k"]
PARTS = [
    "a", "b", "*", "**", "?", "*.py", "a*", "[ab]", "[!a]", "[^b]*", "[a-b]", "[]a]", "[[:alpha:]]", "x y", "k", "***",
    "a**b", "**b", "c#", "\\a", "*\\y", "\\!n", "\\[z]", "\\#",
]  # fmt: skip
SEEDS = range(60)


def kept(root: Path, folder: Path, patterns: Sequence[Pattern]) -> Iterator[str]:
    for entry in folder.iterdir():
        path = entry.relative_to(root).as_posix()
        if entry.name == ".git" or is_ignored(patterns, path, is_folder=entry.is_dir()):
            continue
        if entry.is_dir():
            yield from kept(root, entry, patterns)
        else:
            yield path


def kept_by_git(root: Path) -> list[str]:
    command = ["git", "-C", str(root), "ls-files", "-z", "--others", "--exclude-per-directory=.gitignore"]
    found = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    return sorted(filter(None, found.split("\0")))


def grow(root: Path, chance: random.Random) -> None:
    """Make some files in some folders."""
    for _ in range(14):
        folder = root.joinpath(*chance.choices(FOLDERS, k=chance.randint(0, 3)))
        if any(above.is_file() for above in (folder, *folder.parents)):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if not (file := folder / chance.choice(FILES)).exists():
            file.write_text("")


def line(chance: random.Random) -> str:
    body = "/".join(chance.choices(PARTS, k=chance.randint(1, 3)))
    before, after = chance.choice(["", "", "!", "/", "!/"]), chance.choice(["", "", "/", "  ", "/  "])
    return f"{before}{body}{after}"


@pytest.mark.parametrize("seed", SEEDS)
def test_what_git_keeps(tmp_path: Path, seed: int) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    chance = random.Random(seed)
    grow(tmp_path, chance)
    lines = [line(chance) for _ in range(chance.randint(1, 5))]
    (tmp_path / ".gitignore").write_text("\n".join(["# comment", "", *lines]))
    assert sorted(kept(tmp_path, tmp_path, read_patterns(["# comment", "", *lines]))) == kept_by_git(tmp_path), lines


@pytest.mark.parametrize("given", ["!", "/", "!/", "[b-a]"])
def test_a_line_that_is_no_pattern(given: str) -> None:
    with pytest.raises(ValueError, match="the pattern"):
        read_patterns([given])
