"""The job's parameters, read from a single JSON argument and validated completely before Ray is used."""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

MAX_LENGTH = 255
MAX_SEED = 2**53
MAX_AMOUNT = 2**32
MAX_PRIORITY = 2**31

APPLICATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
ROUTE_PREFIX = re.compile(r"/(?!-(?:/|$))[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*")


class ParameterError(ValueError):
    """A parameter is missing, unknown or invalid; the message has its name, its value and what was expected."""


@dataclass(frozen=True)
class ProcessParameters:
    """Number of preprocess tasks that share the work, and number of Provider actors that serve them."""

    worker_number: int
    actor_number: int


@dataclass(frozen=True)
class DataParameters:
    """Which tuples to generate, and how many make up a batch and a summary."""

    amount: int
    offset: int
    lengths: tuple[int, ...]
    extensions: tuple[str, ...]
    priority: Mapping[str, int]
    tuple_batch: int
    stats_batch: int


@dataclass(frozen=True)
class ServeParameters:
    """Where to serve the output, and for how many seconds at most."""

    application: str
    route_prefix: str
    host: str | None
    port: int
    linger_seconds: float


@dataclass(frozen=True)
class JobParameters:
    """All parameters of a run."""

    process: ProcessParameters
    data: DataParameters
    serve: ServeParameters


class Section:
    """One JSON object of the input, read key by key."""

    def __init__(self, name: str, value: object) -> None:
        if not isinstance(value, dict):
            raise wrong(name, value, "an object")
        self.name = name
        self.values: dict[str, Any] = value

    def refuse_unknown(self, parameters: type) -> None:
        """Reject keys that are not fields of the section's dataclass."""
        known = [field.name.replace("_", "-") for field in fields(parameters)]
        for key in self.values:
            if key not in known:
                raise ParameterError(f"{self.name}.{key} is unknown; expected only {', '.join(known)}")

    def get(self, key: str, *default: Any) -> Any:
        if key not in self.values and not default:
            raise ParameterError(f"{self.name}.{key} is missing")
        return self.values.get(key, *default)

    def integer(self, key: str, *default: int, low: int, high: int | None = None) -> int:
        return checked_integer(f"{self.name}.{key}", self.get(key, *default), low, high)

    def seconds(self, key: str, default: float) -> float:
        value = self.get(key, default)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            raise wrong(f"{self.name}.{key}", value, "a number of seconds, 0 or more")
        return float(value)

    def text(self, key: str, default: str, pattern: re.Pattern[str], expected: str) -> str:
        value = self.get(key, default)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise wrong(f"{self.name}.{key}", value, expected)
        return value

    def items(self, key: str) -> list[Any]:
        value = self.get(key)
        if not isinstance(value, list) or not value:
            raise wrong(f"{self.name}.{key}", value, "a list with at least one item")
        return value


def read_parameters(arguments: list[str]) -> JobParameters:
    """Validate the JSON argument of the command line and return the parameters.

    :param arguments: the command-line arguments without the script name.
    :raises ParameterError: at the first invalid field.
    """
    if len(arguments) != 1:
        raise ParameterError(f"got {len(arguments)} arguments; expected exactly one: the parameters as JSON")
    try:
        job = json.loads(arguments[0])
    except ValueError as error:
        raise ParameterError(f"the argument is not JSON ({error}); expected a JSON object") from error
    return parse_parameters(job)


def parse_parameters(job: object) -> JobParameters:
    """Validate the decoded parameters and return them.

    :param job: the decoded JSON object.
    :raises ParameterError: at the first invalid field.
    """
    sections = Section("parameters", job)
    known = ("process-parameters", "storage-parameters", "data-parameters", "serve-parameters")
    for key in sections.values:
        if key not in known:
            raise ParameterError(f"{key} is unknown; expected only {', '.join(known)}")
    process = process_parameters(Section("process-parameters", sections.get("process-parameters")))
    storage = sections.get("storage-parameters", {})
    if storage != {}:
        raise wrong("storage-parameters", storage, "an empty object: this job stores nothing")
    data = data_parameters(Section("data-parameters", sections.get("data-parameters")))
    serve = serve_parameters(Section("serve-parameters", sections.get("serve-parameters", {})))
    if process.worker_number > data.amount:
        expected = f"at most data-parameters.amount ({data.amount}): every worker needs at least one tuple"
        raise wrong("process-parameters.worker-number", process.worker_number, expected)
    return JobParameters(process, data, serve)


def process_parameters(section: Section) -> ProcessParameters:
    section.refuse_unknown(ProcessParameters)
    return ProcessParameters(section.integer("worker-number", low=1), section.integer("actor-number", low=1))


def data_parameters(section: Section) -> DataParameters:
    section.refuse_unknown(DataParameters)
    amount = section.integer("amount", low=1, high=MAX_AMOUNT)
    extensions = tuple(checked_extension(section, value) for value in section.items("extensions"))
    return DataParameters(
        amount=amount,
        offset=section.integer("offset", 0, low=0, high=MAX_SEED - amount),
        lengths=tuple(
            checked_integer(f"{section.name}.lengths", value, 1, MAX_LENGTH) for value in section.items("lengths")
        ),
        extensions=extensions,
        priority=extension_priorities(section, extensions),
        tuple_batch=section.integer("tuple-batch", low=1),
        stats_batch=section.integer("stats-batch", low=1),
    )


def extension_priorities(section: Section, extensions: tuple[str, ...]) -> dict[str, int]:
    priority = Section(f"{section.name}.priority", section.get("priority"))
    for extension in extensions:
        if extension not in priority.values:
            raise ParameterError(
                f"{priority.name} has no {json.dumps(extension)}; expected an integer for every extension"
            )
    return {key: priority.integer(key, low=-MAX_PRIORITY, high=MAX_PRIORITY) for key in priority.values}


def serve_parameters(section: Section) -> ServeParameters:
    section.refuse_unknown(ServeParameters)
    application = section.text(
        "application",
        f"processing-{uuid.uuid4().hex[:12]}",
        APPLICATION,
        "up to 200 letters, digits, '.', '_' and '-'",
    )
    host = section.get("host", None)
    if host is not None and (not isinstance(host, str) or not host):
        raise wrong(f"{section.name}.host", host, "an address to listen on, such as 0.0.0.0")
    return ServeParameters(
        application=application,
        route_prefix=section.text(
            "route-prefix",
            f"/{application}",
            ROUTE_PREFIX,
            "a path such as /processing: with a leading '/', without a trailing one, not below /-",
        ),
        host=host,
        port=section.integer("port", 8000, low=1, high=65535),
        linger_seconds=section.seconds("linger-seconds", 120),
    )


def checked_extension(section: Section, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise wrong(f"{section.name}.extensions", value, "strings of at least one character")
    if any(c.isalpha() and not c.isascii() for c in value):
        raise wrong(
            f"{section.name}.extensions", value, "only letters from a to z, which have a position in the alphabet"
        )
    return value


def checked_integer(name: str, value: object, low: int, high: int | None) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        raise wrong(name, value, f"an integer of at least {low}" + ("" if high is None else f", at most {high}"))
    return value


def wrong(name: str, value: object, expected: str) -> ParameterError:
    shown = json.dumps(value)
    return ParameterError(f"{name} is {shown if len(shown) <= 80 else shown[:77] + '...'}; expected {expected}")
