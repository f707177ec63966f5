"""Credentials inside other values: in URLs, in options of pip, in variables named after them.

What is found here is hidden where it is shown, and masked in logs. A name that calls its value a secret is believed,
unless the value is one of those that nobody keeps secret. A name that merely contains such a word proves nothing:
masking the value of ``TOKENIZERS_PARALLELISM`` would remove every ``false`` from a log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
SHORTEST = 5  # characters: Airflow 3.3 masks nothing shorter

_KEYS = (
    "api|access|secret|private|account|service|encryption|decryption|fernet|signing|master|subscription|hmac|jwt|ssh"
)
_SECRET_WORDS = (
    r"passwords?|passwd|passphrase|secrets?|token|credentials?|authorization|bearer|signature|auth[-_]?header"
    rf"|basic[-_]?auth|(?:{_KEYS})[-_]?keys?|(?<![a-z0-9])(?:pwd|sig)"
)
# Addresses that are a credential as a whole.
_ADDRESS_WORDS = r"webhook(?:[-_]?ur[il])?|(?<![a-z0-9])dsn|conn(?:ection)?[-_]?str(?:ing)?"
# What may follow the word without making the name that of something else: TOKEN_2, DB_PASSWORD_PROD.
_WHICH = (
    r"(?:[-_.]?(?:v?\d+|(?<=[-_.])(?:prod|production|prd|live|stag(?:e|ing)|dev|test|value|text|raw|base|base64|b64|main"
    r"|primary|secondary|old|new|current|previous)))*$"
)
# The name says that its value is a secret: DB_PASSWORD, TOKEN_2. Others merely contain the word: PASSWORD_MIN_LENGTH.
_SAYS_SO = re.compile(rf"(?:{_SECRET_WORDS}){_WHICH}", re.IGNORECASE)
_SAYS_ADDRESS = re.compile(rf"(?:{_ADDRESS_WORDS}){_WHICH}", re.IGNORECASE)
_CONTAINS = re.compile(rf"{_SECRET_WORDS}|{_ADDRESS_WORDS}|key|code|auth|pwd|service[-_]?account|proxy", re.IGNORECASE)
# Tokens of language models.
_OF_TEXT = re.compile(
    r"(?<![a-z0-9])(?:max|min|num|n|per|pad|eos|bos|unk|sep|cls|mask|stop|start|end|special|image)[-_]?token$",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

# Values that nobody keeps secret, whatever the name or header says.
_WORD = re.compile(
    r"airflow|anonymous|basic|bearer|changeme|default|development|digest|disabled|dummy|empty|"
    r"enabled|example|false|guest|kerberos|localhost|minioadmin|negotiate|none|nothing|null|"
    r"oauth2|optional|password|placeholder|postgres|postgresql|production|public|required|secret|"
    r"staging|string|testing|token|true|undefined|unknown|unset|unused|username",
    re.IGNORECASE,
)
_HARMLESS = re.compile(
    r"""
      [A-Za-z]{1,5} | [-+]?\d{1,5}                                     # a short word, a small number
    | (?:~|\.{0,2})(?:/[a-z][a-z_.-]*(?:\d{1,2}[a-z_.-]*)?){2,}/?      # a path of words, to a file with the secret
    | [A-Za-z][A-Za-z0-9+.-]*://[\w.-]*(?::\d+)?/?                     # the address of a server
    | \$\{\w+\} | \$[A-Z_][A-Z0-9_]* | %[A-Z_]+% | \{\{.*\}\}         # a variable
    | <\|?[\w/ -]{0,30}\|?> | \[[A-Z_]{0,12}\] | \*+                  # a token of a language model, something hidden
    """,
    re.VERBOSE,
)
# Values that may look random and are none: they count if the name leaves it open what they are.
_ORDINARY = re.compile(
    r"""
      [-+]?[\d.,:_/TZ+-]+\s*[A-Za-z%]{0,3}               # a number, a date
    | v?\d+(\.\w+)*                                      # a version
    | (~|\.{0,2})/\S* | [A-Za-z]:\\.*                    # a path
    | [A-Za-z][A-Za-z0-9+.-]*://\S*                      # an address, whose own credentials are found apart
    | [\w.+-]+@[\w-]+(\.[\w-]+)+                         # a mail address, a service account
    """,
    re.VERBOSE,
)
_VARIABLE = re.compile(r"\$\{?\w+\}?|\*+")
_IDENTIFIER = re.compile(r"[A-Za-z]+([-_./: ]([A-Za-z]+(\d{1,3}[A-Za-z]*)?|\d{1,3}[A-Za-z]*)?)*")
_RANDOM_LENGTH = 12
# Headers that say what is sent, or who sends it.
_ABOUT_CONTENT = re.compile(
    r"accept(-.*)?|content-.*|transfer-encoding|user-agent|host|cache-control|connection|origin|x-request-timeout-seconds",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\w+\s+(\S.*)")

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
        r"(?<![\w.-])--(?P<option>[\w-]+)\s+[\"']?(?P<given>[^\s\"'-][^\s\"']*)",
        r"(?<![\w.-])-{0,2}(?P<name>[\w.-]+)(?:\s*=\s*|[\"']\s*:\s*)[\"']?(?P<value>[^\s\"'&;,#=]+={0,2})(?![^\s\"'&;,#])",
    )
)


def looks_secret(name: str, value: str, sure: Collection[str] = ()) -> bool:
    """Whether a value is a secret, by its name and by what it looks like.

    :param name: of a variable or field.
    :param value: what it holds.
    :param sure: words in lower case; a name that contains one says that its value is a secret.
    """
    return len(value) >= SHORTEST and _is_secret(name, value, sure)


def header_secrets(headers: Mapping[str, str]) -> set[str]:
    """What to mask of headers that carry credentials: all values but words that nobody keeps secret."""
    found = find_secrets(headers)
    for name, value in headers.items():
        if not (_ABOUT_CONTENT.fullmatch(name) or _is_word(value)):
            found |= _forms(value)
            # Behind the scheme, as in "Bearer ...".
            found.update(*(_forms(rest) for rest in _SCHEME.findall(value) if not _is_word(rest)))
    return found


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
            if not _is_harmless(text[start:end]):
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
    if isinstance(name, str) and _is_text(value) and looks_secret(name, str(value)):
        return HIDDEN
    return without_secrets(value)


def _is_text(value: Any) -> bool:
    """Whole numbers count: a password may consist of digits."""
    return isinstance(value, str | int) and not isinstance(value, bool)


def _cut(text: str) -> str:
    shown, done = "", 0
    for start, end in sorted(_spans(text)):
        if start >= done:
            shown += text[done:start] + HIDDEN
        done = max(done, end)
    return shown + text[done:]


def _texts(given: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The strings in a value, each with the name of the field that holds it."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            yield from _texts(value, str(key))
    elif isinstance(given, list | tuple):
        for option, value in _with_options(given):
            yield from _texts(value, option)
    elif _is_text(given):
        yield name, str(given)
        if isinstance(given, str) and given.lstrip().startswith(("{", "[")):
            with suppress(ValueError, RecursionError):
                yield from _texts(json.loads(given))


def _with_options(values: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """The items of a list, each with the option that precedes it, as in ``["--password", "..."]``."""
    option = ""
    for value in values:
        yield option, value
        option = value.lstrip("-") if isinstance(value, str) and value.startswith("-") and "=" not in value else ""


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Where secrets stand in a text; one may be within another, as a password in an address that is a secret."""
    for pattern in _IN_TEXT:
        for match in pattern.finditer(text):
            group, is_secret = _JUDGED[str(match.lastgroup)]
            if not _VARIABLE.fullmatch(match[group]) and is_secret(match):
                yield match.span(group)


# By the last group of a pattern: the group with what may be a secret, and what tells whether it is one.
_JUDGED: dict[str, tuple[str, Callable[[re.Match[str]], bool]]] = {
    "secret": ("secret", lambda match: True),
    "random": ("random", lambda match: _looks_random(match["random"])),
    "given": ("given", lambda match: _is_secret(match["option"], match["given"])),
    "value": ("value", lambda match: looks_secret(match["name"], match["value"])),
}


def _is_secret(name: str, value: str, sure: Collection[str] = ()) -> bool:
    if _is_harmless(value):
        return False
    words = _CAMEL.sub("_", name)
    if any(word in name.lower() for word in sure) or (_SAYS_SO.search(words) and not _OF_TEXT.search(words)):
        return True
    if _SAYS_ADDRESS.search(words):
        return any(mark in value for mark in "/@=")
    return bool(_CONTAINS.search(words)) and _looks_random(value) and not _ORDINARY.fullmatch(value)


def _is_word(value: str) -> bool:
    return bool(_WORD.fullmatch(value.strip()))


def _is_harmless(value: str) -> bool:
    return _is_word(value) or bool(_HARMLESS.fullmatch(value.strip()))


def _looks_random(value: str) -> bool:
    has_digit, has_letter = (any(map(kind, value)) for kind in (str.isdigit, str.isalpha))
    return (
        len(value) >= _RANDOM_LENGTH
        and has_digit
        and has_letter
        and not _is_harmless(value)
        and not _IDENTIFIER.fullmatch(value)
    )


def _forms(secret: str) -> set[str]:
    """The secret as it stands there, decoded from a URL, and its lines, since a log shows one line at a time."""
    forms = {secret, unquote(secret)}
    lines = [line.strip() for form in forms for line in form.splitlines()] if "\n" in secret else []
    return {form for form in (*forms, *lines) if len(form) >= SHORTEST and not form.startswith("-----")}
