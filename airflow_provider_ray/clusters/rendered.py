"""What a template has become."""

from __future__ import annotations

import json
from ast import literal_eval
from contextlib import suppress
from typing import Any


def value_of(given: Any) -> Any:
    """The value that a rendered template stands for: JSON or a Python literal; any other text as it is.

    A template gives a text, also where the Param that it names is a list or a number.
    """
    if not isinstance(given, str):
        return given
    for read in (json.loads, literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return read(given)
    return given


def list_of(given: Any) -> Any:
    """The same where one name is a text of its own, which is left alone even if it could be a number."""
    return value_of(given) if isinstance(given, str) and given.lstrip().startswith("[") else given
