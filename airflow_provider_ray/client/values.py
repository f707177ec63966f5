"""Values as Dag authors give them: numbers, strings and JSON, checked before anything is sent."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from os import PathLike
from typing import Any
from uuid import UUID

from airflow_provider_ray.client.errors import RayConfigError

STRING_EXPECTED = "a string, as by str(...); a template that is rendered natively keeps one as \"'{{ ... }}'\""

# Resources that any Ray cluster may have, as Ray spells them.
RESOURCES = ("CPU", "GPU", "memory", "object_store_memory")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_RESOURCES = {name.lower(): name for name in RESOURCES}


def number(name: str, value: Any) -> float | None:
    """An amount, possibly from a template that was rendered to a string; None and "" mean not given.

    :param name: what the author calls the value, for the error.
    :raises RayConfigError: when it is not a finite number of 0 or more.
    """
    if value is None or value == "":
        return None
    try:
        amount = math.nan if isinstance(value, bool) else _amount(value)
    except (TypeError, ValueError, OverflowError):
        amount = math.nan
    if not 0 <= amount < math.inf:
        raise RayConfigError(name, repr(value)[:200], "a number of 0 or more")
    return int(amount) if amount == int(amount) else amount


def whole_number(name: str, value: Any) -> int | None:
    """The same for an amount in whole units.

    :raises RayConfigError: when it is not a whole number of 0 or more.
    """
    amount = number(name, value)
    if amount is not None and not isinstance(amount, int):
        raise RayConfigError(name, repr(value), "a whole number of 0 or more")
    return amount


def resources(name: str, value: Any) -> dict[str, float]:
    """Amounts by the name of a resource.

    :raises RayConfigError: when it is not a dict, a name is not a string or is one of Ray's own misspelt, or an amount
        is missing or not a number.
    """
    expected = "a number of 0 or more for each resource, such as {'CPU': 4, 'memory': 8e9}"
    if not isinstance(value, Mapping):
        raise RayConfigError(name, repr(value)[:200], expected)
    amounts = {key: number(f"{name}[{key!r}]", amount) for key, amount in value.items()}
    for key, amount in amounts.items():
        if not isinstance(key, str) or not key or amount is None:
            raise RayConfigError(name, f"{key!r}: {value[key]!r}", expected)
        meant = _OWN_RESOURCES.get(key.lower().removeprefix("num_").removesuffix("s"))
        if meant and key != meant:
            raise RayConfigError(name, repr(key), f"{meant!r}, as Ray spells it")
    return {key: amount for key, amount in amounts.items() if amount is not None}


def string(name: str, value: Any) -> str:
    """A string; paths, UUIDs, enums and whole numbers are written out, since only one text can be meant.

    A fraction or a truth value is refused: 3.10 may have been the version "3.10", and True may mean "true" or "1". The
    error does not show the value, which may be a secret.

    :raises RayConfigError: when it is none of these.
    """
    value = _scalar(value)
    if isinstance(value, PathLike | UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        value = str(value)
    if not isinstance(value, str):
        raise RayConfigError(name, f"a value of type {type(value).__name__}", STRING_EXPECTED)
    utf8(name, value)
    return value


def strings(name: str, value: Any) -> dict[str, str]:
    """A dict of strings, see :func:`string`.

    :raises RayConfigError: when it is not a dict, or a key or value is not a string.
    """
    if not isinstance(value, Mapping):
        raise RayConfigError(name, type(value).__name__, "a dict of strings")
    if wrong := [key for key in value if not isinstance(key, str)]:
        raise RayConfigError(name, f"{wrong[0]!r} as a key", "strings as keys")
    return {string(name, key): string(f"{name}[{key!r}]", text) for key, text in value.items()}


def plain(name: str, value: Any) -> Any:
    """A value in the types of JSON.

    Any sequence becomes a list, also the lazy XCom of a mapped task, and any mapping or dataclass a dict. Dates and
    times become ISO 8601, a ``timedelta`` seconds, paths and UUIDs text, an enum its value, a ``Decimal`` a number, and
    arrays and scalars of numpy or pandas what their ``tolist`` returns. Sets have no order, and are refused.

    :raises RayConfigError: naming the field, the place in it and the type that JSON does not know.
    """
    try:
        return _plain(value, "")
    except (TypeError, ValueError, RecursionError) as error:
        raise RayConfigError(name, f"a value that is not JSON ({error})", "JSON-serializable values") from error


def as_json(name: str, value: Any) -> str:
    """Strict JSON of a value, see :func:`plain`: no NaN, no keys that are not strings.

    :raises RayConfigError: naming the field and the type that JSON does not know.
    """
    given = plain(name, value)
    try:
        return json.dumps(given, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RayConfigError(name, f"a value that is not JSON ({error})", "JSON-serializable values") from error


def utf8(name: str, text: str) -> bytes:
    """A string in UTF-8.

    :raises RayConfigError: for half of a surrogate pair, which passes through JSON and breaks Ray's own records.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RayConfigError(name, "a lone surrogate", "text that UTF-8 can encode") from error


def _amount(value: Any) -> float:
    """Whole numbers stay exact, however large."""
    if isinstance(value, int):
        return value
    try:
        return int(value) if isinstance(value, str) else float(value)
    except ValueError:
        return float(value)


def _scalar(value: Any) -> Any:
    """The value of an enum, and the Python value of a scalar of numpy."""
    if isinstance(value, Enum):
        return _scalar(value.value)
    # numpy is not imported for this; its strings and floats are Python's, and its arrays stay what they are.
    return value.tolist() if getattr(value, "shape", None) == () else value


def _plain(value: Any, where: str) -> Any:
    value = _scalar(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(inner, f"{where}[{key!r}]") for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_plain(inner, f"{where}[{position}]") for position, inner in enumerate(value)]
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), where)
    return _written(value, where)


def _key(key: Any, where: str) -> str:
    key = _scalar(key)
    if not isinstance(key, str):
        raise TypeError(f"key {key!r} is a {type(key).__name__}, not a string{_at(where)}")
    return key


def _written(value: Any, where: str) -> str | float:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, PathLike | UUID):
        return str(value)
    if isinstance(value, Decimal):
        return _of_decimal(value, where)
    if isinstance(value, set | frozenset):
        raise TypeError(f"a {type(value).__name__} has no order; a sorted list has one{_at(where)}")
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable{_at(where)}")


def _of_decimal(value: Decimal, where: str) -> float:
    amount = int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if value.is_finite() and Decimal(repr(amount)) != value:
        raise ValueError(f"a Decimal with more digits than a number in JSON keeps; pass it as a string{_at(where)}")
    return amount


def _at(where: str) -> str:
    return f", at {where}" if where else ""


def check_headers(name: str, value: Any) -> None:
    """Reject headers that cannot be sent; the error names them, never their values.

    :raises RayConfigError: naming the field.
    """
    if not isinstance(value, Mapping) or not all(
        isinstance(key, str) and isinstance(text, str) for key, text in value.items()
    ):
        raise RayConfigError(name, type(value).__name__, "a JSON object with string values")
    for key, text in value.items():
        if not _HEADER_NAME.fullmatch(key):
            raise RayConfigError(name, f"the header name {key!r}", "a name of letters, digits and dashes")
        if not text.isprintable():
            raise RayConfigError(name, f"a line break or control character in {key!r}", "values on one line")
