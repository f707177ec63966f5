"""Values as Dag authors give them: numbers, strings and JSON, checked before anything is sent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from airflow_provider_ray.client.errors import RayConfigError


def number(name: str, value: Any) -> float | None:
    """An amount, possibly from a template that was rendered to a string; None and "" mean not given.

    :param name: what the author calls the value, for the error.
    :raises RayConfigError: when it is not a finite number of 0 or more.
    """
    if value is None or value == "":
        return None
    try:
        amount = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        amount = math.nan
    if not 0 <= amount < math.inf:
        raise RayConfigError(name, repr(value), "a number of 0 or more")
    return int(amount) if amount.is_integer() else amount


def whole_number(name: str, value: Any) -> int | None:
    """The same for an amount in whole units.

    :raises RayConfigError: when it is not a whole number of 0 or more.
    """
    amount = number(name, value)
    if amount is not None and not isinstance(amount, int):
        raise RayConfigError(name, repr(value), "a whole number of 0 or more")
    return amount


def as_json(name: str, value: Any) -> str:
    """Strict JSON of a value: no NaN, no keys that are not strings.

    :raises RayConfigError: naming the field and the type that JSON does not know.
    """
    try:
        _check_keys(value)
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RayConfigError(name, f"a value that is not JSON ({error})", "JSON-serializable values") from error


def check_strings(name: str, value: Any) -> None:
    """Reject anything but a dict of strings; the error names the key, not the value.

    :raises RayConfigError: see above.
    """
    if not isinstance(value, Mapping):
        raise RayConfigError(name, type(value).__name__, "a dict of strings")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise RayConfigError(name, f"{key!r} of type {type(text).__name__}", "string keys and string values")
        utf8(name, key + text)


def utf8(name: str, text: str) -> bytes:
    """A string in UTF-8.

    :raises RayConfigError: for half of a surrogate pair, which passes through JSON and breaks Ray's own records.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RayConfigError(name, "a lone surrogate", "text that UTF-8 can encode") from error


def _check_keys(value: Any) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} is a {type(key).__name__}, not a string")
            _check_keys(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_keys(inner)
