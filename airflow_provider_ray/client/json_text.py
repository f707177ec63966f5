"""Strings from a cluster as Airflow can store them: its database and messages do not take all that JSON can hold."""

from __future__ import annotations

from typing import Any


def is_suspect(encoded: bytes) -> bool:
    """Whether encoded JSON may hold what :func:`sanitized` changes."""
    return b"\\u" in encoded or b"\0" in encoded or not encoded.isascii()


def sanitized(value: Any) -> Any:
    """The same decoded JSON, with strings that contain neither NUL nor lone surrogates.

    PostgreSQL rejects NUL in text and JSON, and a lone surrogate cannot be encoded for a message between Airflow's
    processes; either ends a whole triggerer (Airflow 3.3.2) when it is in an event.
    """
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        return value.encode("utf-8", "replace").decode().replace("\0", "")
    if isinstance(value, dict):
        return {sanitized(key): sanitized(each) for key, each in value.items()}
    if isinstance(value, list):
        return [sanitized(each) for each in value]
    return value
