"""Arguments that may be templates: what is known of them in the Dag file, and what they are once rendered.

This follows what Airflow 3.3 renders and resolves, which it documents only in part. Delete :func:`is_literal` when
operators can ask Airflow whether an argument is known, and :func:`value_of` when a template can keep the type of what
it names without ``render_template_as_native_obj`` for the entire Dag.
"""

from __future__ import annotations

import json
import os
from ast import literal_eval
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from airflow.sdk import XComArg
    from airflow.sdk.definitions.param import DagParam

    # What Airflow replaces by a value in a run: the output of a task, ``dag.param(...)``.
    Resolvable: TypeAlias = XComArg | DagParam


def is_literal(given: Any) -> bool:
    """Whether a value is known in the Dag file, that is, holds neither a template nor anything that a run resolves."""
    if isinstance(given, str):
        return "{" not in given
    if isinstance(given, Mapping):
        return all(map(is_literal, given.values()))
    if isinstance(given, list | tuple | set):
        return all(map(is_literal, given))
    # Airflow 3.3 calls a callable that is a template field, and resolves everything with this method except paths.
    return not callable(given) and (isinstance(given, os.PathLike) or not hasattr(given, "resolve"))


def value_of(given: Any) -> Any:
    """The value that a rendered template stands for: JSON or a Python literal; any other text is returned as it is.

    A template always renders to text, even when the Param that it names is a list or a number.
    """
    if not isinstance(given, str):
        return given
    for read in (json.loads, literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return read(given)
    return given


def list_of(given: Any) -> Any:
    """Like :func:`value_of`, but for lists only: a single name stays text even if it looks like a number."""
    return value_of(given) if isinstance(given, str) and given.lstrip().startswith("[") else given
