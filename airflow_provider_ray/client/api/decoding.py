"""From the bytes of an answer to a checked value, without holding up the process or what it holds in memory.

Ray writes what Python's ``json`` writes, which is more than JSON allows: ``NaN``, lone surrogates and NUL, all of which
the user of a cluster can put into a job's runtime_env or metadata. They must not make the whole list unreadable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Generic, TypeVar, get_origin

import msgspec

from airflow_provider_ray.client import pacing

T = TypeVar("T")

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?Infinity|NaN', re.DOTALL)
# As much as ends within no string and no number.
_WHOLE_TOKENS = re.compile(rb'(?:[^",]*+(?:,|"[^"\\]*+(?:\\.[^"\\]*+)*+"))*+', re.DOTALL)
_MAY_BE_ODD = re.compile(rb"NaN|Infinity|\\u[0dD]")
# What is escaped in a string; a pair of surrogates is one character, half of a pair is none.
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u[dD][89a-fA-F]..|u0000|.)", re.DOTALL)
# Where one record of a list ends and the next one begins. Within a string, a quotation mark has a backslash before it.
_BOUNDARY = re.compile(rb'\}\s*+,\s*+(?=\{\s*+")')
_INDEX = re.compile(r"\$\[(\d+)\]")


class _Rows(msgspec.Struct, Generic[T]):
    data: _Data[T]


class _Data(msgspec.Struct, Generic[T]):
    result: _Result[T]


class _Result(msgspec.Struct, Generic[T]):
    result: T


def decoded(text: bytes, answer: type[T]) -> T:
    """Decode JSON to a type and check it; strings come out without NUL and lone surrogates.

    A long list is decoded piece by piece, because each piece keeps all other threads waiting.

    :raises msgspec.ValidationError: when the JSON has another type.
    :raises ValueError: when it is not JSON.
    """
    is_long_list = get_origin(answer) is list and len(text) > pacing.DECODED_AT_ONCE_BYTES
    found: T = _in_pieces(text, answer) if is_long_list else _at_once(text, answer)
    return found


def decoded_rows(text: bytes, answer: type[T]) -> T:
    """The same for a list of the state API, which is three levels down in its answer."""
    if len(text) <= pacing.DECODED_AT_ONCE_BYTES:
        at_once: T = _at_once(text, _Rows[answer]).data.result.result  # type: ignore[valid-type]
        return at_once
    return decoded(bytes(_as_written(text, _Rows[msgspec.Raw]).data.result.result), answer)


def _at_once(text: bytes, answer: Any) -> Any:
    return _as_written(_cleaned(text) if rb"\u0000" in text else text, answer)


def _as_written(text: bytes | bytearray, answer: Any) -> Any:
    """Decode what may be no JSON; NUL stays as it is."""
    try:
        return msgspec.json.decode(text, type=answer)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return msgspec.json.decode(_cleaned(text), type=answer)


def _cleaned(text: bytes | bytearray) -> bytearray:
    """The same as JSON and without NUL."""
    clean = bytearray()
    for window in _windows(text):
        clean += _TOKEN.sub(_as_json, window) if _MAY_BE_ODD.search(window) else window
    return clean


def _windows(text: bytes | bytearray) -> Iterator[bytes]:
    """The text in pieces, because replacing takes memory for each string; none ends within a string or a number."""
    start, size = 0, pacing.DECODED_AT_ONCE_BYTES
    while start < len(text):
        window = _WHOLE_TOKENS.match(text, start, start + size)
        end = window.end() if window and start + size < len(text) else len(text)
        if end > start:
            yield bytes(text[start:end])
            start, size = end, pacing.DECODED_AT_ONCE_BYTES
        else:
            size *= 2


def _as_json(token: re.Match[bytes]) -> bytes:
    """A string or number of Python's json, as JSON and Airflow's database can hold it."""
    written = token[0]
    if not written.startswith(b'"'):
        # No field takes it, and where nobody reads it, any number will do.
        return b"1e999"
    return _ESCAPE.sub(_as_text, written) if rb"\u" in written else written


def _as_text(escape: re.Match[bytes]) -> bytes:
    written = escape[0]
    if written == rb"\u0000":
        return b""
    return b"?" if len(written) == len(rb"\ud83d") else written


def _in_pieces(text: bytes, answer: Any) -> Any:
    text = text.strip()
    if not text.startswith(b"["):
        return _at_once(text, answer)
    if not text.endswith(b"]"):
        raise ValueError("a list without an end")
    found: list[Any] = []
    start, end = 1, len(text) - 1
    while start < end:
        try:
            piece, start = _piece(text, start, end, answer)
        except msgspec.ValidationError as error:
            raise msgspec.ValidationError(_counted_from(len(found), str(error))) from error
        found += piece
    return found


def _counted_from(first: int, message: str) -> str:
    """An error about a piece, with the place in the whole list."""
    return _INDEX.sub(lambda index: f"$[{first + int(index[1])}]", message, count=1)


def _piece(text: bytes, start: int, end: int, answer: Any) -> tuple[Any, int]:
    """The records from a place on, and where the next ones begin.

    A boundary may be one within a record; the piece is no JSON then, and a longer one is tried.
    """
    size = pacing.DECODED_AT_ONCE_BYTES
    while True:
        boundary = _BOUNDARY.search(text, start + size, end)
        stop, following = (boundary.start() + 1, boundary.end()) if boundary else (end, end)
        if stop - start > size + pacing.RECORD_BYTES:
            raise ValueError(f"a record of more than {pacing.RECORD_BYTES} bytes")
        try:
            return _at_once(b"[" + text[start:stop] + b"]", answer), following
        except msgspec.ValidationError:
            raise
        except ValueError:
            if stop == end or size > pacing.RECORD_BYTES:
                raise
        size *= 2
