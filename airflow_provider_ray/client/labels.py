"""Labels of clusters: those in their connections, and those that a selector requires."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_ray.client.errors import RayConfigError

EXAMPLE = "site=hpc,gpu=true"

_WORD = re.compile(r"[^\s,=]+")


def read_labels(extra: Mapping[str, Any]) -> Mapping[str, str]:
    """Labels from the extras of a connection: a JSON object of strings, or a string such as ``site=hpc,gpu=true``.

    :raises RayConfigError: when they are something else.
    """
    value = extra.get("labels") or {}
    if isinstance(value, str):
        return parse_labels("labels", value)
    if not isinstance(value, Mapping):
        raise RayConfigError("labels", type(value).__name__, f"a JSON object of strings, or a string such as {EXAMPLE}")
    _check("labels", value)
    return dict(value)


def parse_labels(name: str, text: str) -> dict[str, str]:
    """Labels from a string such as ``site=hpc,gpu=true``; whitespace around keys and values does not count.

    :param name: what the author calls the string, for the error.
    :raises RayConfigError: naming the piece that is not a label, or a key that occurs twice.
    """
    labels: dict[str, str] = {}
    for piece in text.split(","):
        key, _, value = (word.strip() for word in piece.partition("="))
        if flaw := _flaw(piece.strip(), key, value, labels):
            raise RayConfigError(name, flaw, f"keys with values, each key once, such as {EXAMPLE}")
        labels[key] = value
    _check(name, labels)
    return labels


def _flaw(piece: str, key: str, value: str, labels: Mapping[str, str]) -> str | None:
    if "=" not in piece:
        return repr(piece)
    if key in labels:
        return f"{key!r} twice"
    missing = "key" if not key else "value" if not value else None
    return missing and f"{piece!r} without a {missing}"


def _check(name: str, labels: Mapping[Any, Any]) -> None:
    for word in (*labels, *labels.values()):
        if not isinstance(word, str):
            raise RayConfigError(name, f"{word!r} of type {type(word).__name__}", 'strings, such as "true" for true')
        if not _WORD.fullmatch(word):
            raise RayConfigError(name, repr(word), "non-empty strings without commas, equals signs and whitespace")
