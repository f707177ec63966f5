"""Credentials inside other values: in URLs, in options of pip, in variables named after them.

What is found here is hidden where it is shown, and masked in logs. A name alone proves nothing: masking the value of
``TOKENIZERS_PARALLELISM`` would remove every ``false`` from a log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
SHORTEST = 5  # characters: Airflow 3.3 masks nothing shorter

_SECRET_WORDS = (
    "password|passwd|passphrase|pwd|secret|token|credentials?|api[-_]?key|access[-_]?key|secret[-_]?key|private[-_]?key"
    "|account[-_]?key|service[-_]?key|auth[-_]?header|authorization|bearer|signature|sig|webhook[-_]?url"
)
# The name says that its value is a secret: DB_PASSWORD, TOKEN_2. Others merely contain the word: PASSWORD_MIN_LENGTH.
_SAYS_SO = re.compile(rf"(?:^|[^a-z0-9])(?:{_SECRET_WORDS})(?:[-_]?v?\d+)?$", re.IGNORECASE)
_CONTAINS = re.compile(
    rf"{_SECRET_WORDS}|key|code|auth|dsn|connection[-_]?string|service[-_]?account|keyfile|proxy", re.IGNORECASE
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

# Values that nobody keeps secret: words, numbers with units, dates and versions, paths, addresses, placeholders.
_PLAIN = re.compile(
    r"""
      [A-Za-z]{1,7}                                      # a short word
    | (?i:anonymous|changeme|disabled|localhost|minioadmin|password|placeholder|postgres|postgresql|required|username)
    | [-+]?[\d.,:_/TZ+-]+\s*[A-Za-z%]{0,3}               # a number, a date
    | v?\d+(\.\w+)*                                      # a version
    | [a-z]{2,}(-[a-z]+)+-?\d{1,2}[a-z]?                 # a region
    | (~|\.{0,2})/\S* | [A-Za-z]:\\.*                    # a path
    | [A-Za-z][A-Za-z0-9+.-]*://\S*                      # an address, whose own credentials are found apart
    | [\w.+-]+@[\w-]+(\.[\w-]+)+                         # a mail address, a service account
    | \$\{?\w+\}? | %\w+% | \{\{.*\}\}                   # a variable
    | <[^<>]*> | \[\w*\] | \*+                           # a special token of a language model, something hidden
    """,
    re.VERBOSE,
)
_IDENTIFIER = re.compile(r"[A-Za-z]+([-_./: ]([A-Za-z]+(\d{1,3}[A-Za-z]*)?|\d{1,3}[A-Za-z]*)?)*")
_RANDOM_LENGTH = 12

# Each of these takes time in proportion to the text, whatever stands in it: Ray's messages are searched as well.
_IN_TEXT = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        # user:password@host; the password may hold an @.
        r"[a-z][a-z0-9+.-]{0,20}://[^\s/?#'\":@]*:(?P<secret>[^\s/?#'\"]+)@(?=[^\s/?#'\"@])",
        # token@host, token:x-oauth-basic@host
        r"[a-z][a-z0-9+.-]{0,20}://(?P<random>[^\s/?#'\":@]+)(?::[^\s/?#'\"]*)?@(?=[^\s/?#'\"@])",
        # A package channel of conda with its token.
        r"://[^\s\"']{0,100}?/t/(?P<secret>[^/\s\"']+)/",
        r"\b(?:Bearer|Basic)\s+(?P<random>[\w.~+/=-]+)",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?P<secret>[^-]+)-----END",
        rf"(?<![\w.-])--[\w-]*(?:{_SECRET_WORDS})\s+(?P<secret>[^\s\"'-][^\s\"']*)",
        r"(?<![\w.-])-{0,2}(?P<name>[\w.-]+)(?:\s*=\s*|[\"']\s*:\s*)[\"']?(?P<value>[^\s\"'&;,#=]+={0,2})(?![^\s\"'&;,#])",
    )
)


def looks_secret(name: str, value: str, sure: Collection[str] = ()) -> bool:
    """Whether a value is a secret, by its name and by what it looks like.

    :param name: of a variable or field.
    :param value: what it holds.
    :param sure: words in lower case; a name that contains one says that its value is a secret.
    """
    if _is_plain(value):
        return False
    words = _CAMEL.sub("_", name)
    says_so = _SAYS_SO.search(words) or any(word in name.lower() for word in sure)
    return bool(says_so) or (bool(_CONTAINS.search(words)) and _looks_random(value))


def header_secrets(headers: Mapping[str, str]) -> set[str]:
    """What to mask of headers that carry credentials: of their values, all that are more than a word."""
    values = (value for value in headers.values() if not (_is_plain(value) or value.isalpha()))
    return find_secrets(headers).union(*map(_forms, values))


def find_secrets(given: Any, sure: Collection[str] = ()) -> set[str]:
    """Every secret in a value, in each form in which it may be printed.

    :param given: text, or lists and dicts of text.
    :param sure: see :func:`looks_secret`.
    """
    found: set[str] = set()
    for name, text in _texts(given):
        if name and looks_secret(name, text, sure):
            found |= _forms(text)
        for start, end in _spans(text):
            if not _is_plain(text[start:end]):
                found |= _forms(text[start:end])
    return found


def without_secrets(given: Any) -> Any:
    """The same value with every secret in it hidden."""
    if isinstance(given, Mapping):
        return {name: _without(name, value) for name, value in given.items()}
    if isinstance(given, list | tuple):
        return [_without(name, value) for name, value in _with_options(given)]
    return _cut(given) if isinstance(given, str) else given


def _without(name: Any, value: Any) -> Any:
    if isinstance(name, str) and isinstance(value, str) and looks_secret(name, value):
        return HIDDEN
    return without_secrets(value)


def _cut(text: str) -> str:
    for start, end in sorted(_spans(text), reverse=True):
        text = text[:start] + HIDDEN + text[end:]
    return text


def _texts(given: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The strings in a value, each with the name of the field that holds it."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            yield from _texts(value, str(key))
    elif isinstance(given, list | tuple):
        for option, value in _with_options(given):
            yield from _texts(value, option)
    elif isinstance(given, str):
        yield name, given
        if given.lstrip().startswith(("{", "[")):
            with suppress(ValueError, RecursionError):
                yield from _texts(json.loads(given))


def _with_options(values: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """The items of a list, each with the option that precedes it, as in ``["--password", "..."]``."""
    option = ""
    for value in values:
        yield option, value
        option = value.lstrip("-") if isinstance(value, str) and value.startswith("-") and "=" not in value else ""


def _spans(text: str) -> list[tuple[int, int]]:
    """Where secrets stand in a text; no two overlap."""
    spans: list[tuple[int, int]] = []
    covered = bytearray(len(text))
    for pattern in _IN_TEXT:
        for match in pattern.finditer(text):
            span = _span(match)
            if span is not None and not any(covered[slice(*span)]):
                covered[slice(*span)] = b"\1" * (span[1] - span[0])
                spans.append(span)
    return spans


def _span(match: re.Match[str]) -> tuple[int, int] | None:
    given = match.groupdict()
    if "secret" in given:
        is_variable = re.fullmatch(r"\$\{?\w+\}?|\*+", given["secret"])
        return None if is_variable else match.span("secret")
    if "random" in given:
        return match.span("random") if _looks_random(given["random"]) else None
    return match.span("value") if looks_secret(given["name"], given["value"]) else None


def _is_plain(value: str) -> bool:
    return len(value) < SHORTEST or bool(_PLAIN.fullmatch(value))


def _looks_random(value: str) -> bool:
    has_digit, has_letter = (any(map(kind, value)) for kind in (str.isdigit, str.isalpha))
    return (
        len(value) >= _RANDOM_LENGTH
        and has_digit
        and has_letter
        and not _is_plain(value)
        and not _IDENTIFIER.fullmatch(value)
    )


def _forms(secret: str) -> set[str]:
    """The secret as it stands there, decoded from a URL, and its lines, since a log shows one line at a time."""
    forms = {secret, unquote(secret)}
    lines = [line.strip() for form in forms for line in form.splitlines()] if "\n" in secret else []
    return {form for form in (*forms, *lines) if len(form) >= SHORTEST and not form.startswith("-----")}
