"""Patterns in the syntax of ``.gitignore``, with the meaning that git gives them (gitignore(5), git 2.16+).

Git asks for each entry of a folder in turn whether it is ignored, and does not look into an ignored folder. A pattern
is therefore matched against the entry itself, and never against what a folder above it is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Character classes of POSIX, which git allows within brackets.
_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \\t",
    "digit": "0-9",
    "lower": "a-z",
    "punct": "!-/:-@\\[-`{-~",
    "space": "\\s",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}
_TOKEN = re.compile(
    r"(?P<folders>(?:(?<=/)|^)\*\*+/)"
    r"|(?P<inside>(?:(?<=/)|^)\*\*+$)"
    r"|(?P<star>\*+)"
    r"|(?P<any>\?)"
    r"|(?P<set>\[(?P<not>[!^]?)(?P<members>\]?(?:\\.|\[:\w+:\]|[^\]])*)\])"
    r"|\\(?P<escaped>.)"
    r"|(?P<literal>.)",
    re.DOTALL,
)
_WILDCARDS = {"folders": "(?:[^/]+/)*", "inside": ".+", "star": "[^/]*", "any": "[^/]"}


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line.

    :param regex: matches a path, or only a name if the line has no slash.
    :param keeps: the line begins with ``!``: what it matches is not ignored after all.
    :param only_folders: the line ends with a slash.
    :param by_path: the line has a slash elsewhere.
    """

    regex: re.Pattern[str]
    keeps: bool
    only_folders: bool
    by_path: bool

    def matches(self, path: str, *, is_folder: bool) -> bool:
        """Whether the line is about this entry.

        :param path: relative to the folder of the ignore file, with slashes.
        """
        if self.only_folders and not is_folder:
            return False
        return bool(self.regex.fullmatch(path if self.by_path else path.rpartition("/")[2]))


def read_patterns(lines: Iterable[str]) -> list[Pattern]:
    """The patterns of an ignore file.

    :raises ValueError: naming a line that is none.
    """
    # Spaces at the end do not count, unless they are escaped.
    stripped = (re.sub(r"(?<!\\) +$", "", line) for line in lines)
    return [_pattern(line) for line in stripped if line and not line.startswith("#")]


def is_ignored(patterns: Sequence[Pattern], path: str, *, is_folder: bool) -> bool:
    """Whether an entry is ignored: the last line that is about it decides."""
    for pattern in reversed(patterns):
        if pattern.matches(path, is_folder=is_folder):
            return not pattern.keeps
    return False


def _pattern(line: str) -> Pattern:
    keeps, text = line.startswith("!"), line.removeprefix("!")
    only_folders, body = text.endswith("/"), text.removesuffix("/")
    if not body:
        raise ValueError(f"the pattern {line!r} names nothing")
    parts = [_translated(token) for token in _TOKEN.finditer(body.removeprefix("/"))]
    try:
        return Pattern(re.compile("".join(parts), re.DOTALL), keeps, only_folders, "/" in body)
    except re.error as error:
        raise ValueError(f"the pattern {line!r} cannot be read: {error}") from error


def _translated(token: re.Match[str]) -> str:
    if token["set"]:
        inner = re.sub(r"\[:(\w+):\]", lambda match: _CLASSES.get(match[1], ""), token["members"])
        return f"(?!/)[{'^' if token['not'] else ''}{_members(inner)}]"
    for name, regex in _WILDCARDS.items():
        if token[name]:
            return regex
    return re.escape(token["escaped"] or token["literal"])


def _members(inner: str) -> str:
    """What is between brackets, for Python: a bracket that comes first is meant literally, and so is an opening one."""
    first = "\\]" if inner.startswith("]") else ""
    return first + re.sub(r"(?<!\\)([\[&~|])", r"\\\1", inner.removeprefix("]"))
