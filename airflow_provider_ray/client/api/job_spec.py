"""A job as it is submitted: everything that can be wrong with it is found before anything is sent."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from airflow_provider_ray.client.api.runtime_env import check_env_vars, read_runtime_env
from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.values import as_json, number, resources, string, strings, utf8, whole_number

# Ray hands the entrypoint to `sh -c` as one argument; Linux caps one argument at 128 KiB (MAX_ARG_STRLEN).
ENTRYPOINT_LIMIT_BYTES = 128 * 1024 - 1
# Ray 2.49-2.60 hands runtime_env and metadata to the driver as JSON in one environment variable, RAY_JOB_CONFIG_JSON,
# for which Linux has the same limit. Ray adds its own variables, defaults and ids, and we the URI of a package. A job
# above the limit stays PENDING and cannot be stopped.
CONFIG_LIMIT_BYTES = ENTRYPOINT_LIMIT_BYTES - 4 * 1024
# Ray's head passes the request on with the fields that are null, and its agent takes 1 MiB, aiohttp's default
# (client_max_size, Ray 2.49-2.60).
REQUEST_LIMIT_BYTES = 1024 * 1024 - 512
# Ray refuses its own resources among the custom ones.
OWN_ARGUMENTS = {
    "CPU": "the argument entrypoint_num_cpus",
    "GPU": "the argument entrypoint_num_gpus",
    "memory": "the argument entrypoint_memory",
    "object_store_memory": "no object store memory, which Ray does not reserve for a driver",
}
# Ray counts resources in steps of this size, and refuses less.
SMALLEST_AMOUNT = 0.0001
SUBMISSION_ID_LIMIT = 200
# The name of the log file, which contains it, has at most 255 bytes.
KNOWN_ID_LIMIT = 255
_SUBMISSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """The body of ``POST /api/jobs/`` (Ray 2.49-2.60).

    :param entrypoint: shell command of the driver.
    :param submission_id: id of the job, chosen by us.
    :param runtime_env: Ray's runtime environment.
    :param metadata: strings to find the job by.
    :param entrypoint_num_cpus: CPUs reserved for the driver; Ray's default is 0.
    :param entrypoint_num_gpus: GPUs reserved for the driver; Ray's default is 0.
    :param entrypoint_memory: bytes reserved for the driver; Ray's default is 0.
    :param entrypoint_resources: custom resources reserved for the driver.
    :param entrypoint_label_selector: labels of the node for the driver (Ray 2.54+).
    :raises RayConfigError: naming the field, what it held and what was expected.
    """

    entrypoint: str
    submission_id: str
    runtime_env: Mapping[str, Any] = field(default_factory=dict, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    entrypoint_num_cpus: float | None = None
    entrypoint_num_gpus: float | None = None
    entrypoint_memory: int | None = None
    entrypoint_resources: Mapping[str, float] | None = None
    entrypoint_label_selector: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        _check_entrypoint(self.entrypoint)
        _check_resources(self)
        check_submission_id(self.submission_id)
        check_env_vars(self.runtime_env)
        _check_sizes(self)

    @classmethod
    def given(
        cls,
        *,
        entrypoint: str | Sequence[Any],
        submission_id: str,
        parameters: Any = None,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        entrypoint_num_cpus: float | str | None = None,
        entrypoint_num_gpus: float | str | None = None,
        entrypoint_memory: float | str | None = None,
        entrypoint_resources: Mapping[str, float | str] | None = None,
        entrypoint_label_selector: Mapping[str, Any] | None = None,
    ) -> Self:
        """A job from values as authors write them: numbers may be text, paths may be ``Path`` objects, and so on.

        :param parameters: appended to the entrypoint, see :func:`command`.
        :raises RayConfigError: naming the field, what it held and what was expected.
        """
        return cls(
            entrypoint=command(entrypoint, parameters),
            submission_id=submission_id,
            runtime_env=read_runtime_env(runtime_env or {}),
            metadata=strings("metadata", metadata or {}),
            entrypoint_num_cpus=number("entrypoint_num_cpus", entrypoint_num_cpus),
            entrypoint_num_gpus=number("entrypoint_num_gpus", entrypoint_num_gpus),
            entrypoint_memory=whole_number("entrypoint_memory", entrypoint_memory),
            entrypoint_resources=resources("entrypoint_resources", entrypoint_resources or {}),
            entrypoint_label_selector=strings("entrypoint_label_selector", entrypoint_label_selector or {}),
        )

    def to_json(self) -> dict[str, Any]:
        """The request's body; Ray rejects unknown keys, including those that an older release does not know yet."""
        body = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in body.items()}
        return {name: value for name, value in plain.items() if value not in (None, {})}


def command(entrypoint: Any, parameters: Any = None) -> str:
    """The shell command for an entrypoint and its parameters.

    :param entrypoint: a shell command as it is, or a list of arguments that are quoted one by one.
    :param parameters: JSON-serializable, see :func:`~airflow_provider_ray.client.values.plain`; appended as one quoted
        argument, pure ASCII so that no locale can change it.
    :raises RayConfigError: when the entrypoint is empty or the parameters are not JSON.
    """
    if isinstance(entrypoint, str):
        line = entrypoint
    elif isinstance(entrypoint, Sequence) and not isinstance(entrypoint, bytes):
        line = shlex.join([string(f"entrypoint[{position}]", part) for position, part in enumerate(entrypoint)])
    else:
        raise RayConfigError("entrypoint", repr(entrypoint)[:200], "a command or a list of strings")
    if not line.strip():
        raise RayConfigError("entrypoint", "nothing", "a command such as 'python main.py'")
    if parameters is None:
        return line
    # A line break at the end, as a template leaves it, would make the argument a command of its own.
    return f"{line.rstrip()} {shlex.quote(as_json('parameters', parameters))}"


def check_submission_id(submission_id: Any) -> None:
    """Reject ids that Ray cannot store: they leave a PENDING record behind that nothing can delete.

    :raises RayConfigError: see above.
    """
    if (
        not isinstance(submission_id, str)
        or len(submission_id) > SUBMISSION_ID_LIMIT
        or not _SUBMISSION_ID.fullmatch(submission_id)
    ):
        expected = f"1 to {SUBMISSION_ID_LIMIT} of the characters A-Z a-z 0-9 _ . -, beginning with a letter or digit"
        raise RayConfigError("submission_id", repr(submission_id)[:250], expected)


def check_known_id(submission_id: Any) -> None:
    """Reject what cannot be the id of a job that runs; jobs that others submit may have ids that we do not create.

    With a slash, or more characters than a file name may have, Ray cannot start a job; dots alone are another path.

    :raises RayConfigError: see above.
    """
    is_text = isinstance(submission_id, str) and 0 < len(submission_id) <= KNOWN_ID_LIMIT
    if not is_text or "/" in submission_id or submission_id in (".", ".."):
        expected = f"the id of a job: 1 to {KNOWN_ID_LIMIT} characters, none of which is a slash"
        raise RayConfigError("submission_id", repr(submission_id)[:250], expected)
    utf8("submission_id", submission_id)


def _check_entrypoint(entrypoint: Any) -> None:
    if not isinstance(entrypoint, str):
        raise RayConfigError("entrypoint", type(entrypoint).__name__, "a command")
    if not entrypoint.strip():
        raise RayConfigError("entrypoint", "nothing", "a command such as 'python main.py'")
    if "\0" in entrypoint:
        raise RayConfigError("entrypoint", "a NUL character", "a command without one")
    size = len(utf8("entrypoint", entrypoint))
    if size > ENTRYPOINT_LIMIT_BYTES:
        expected = f"at most {ENTRYPOINT_LIMIT_BYTES} with the parameters; pass larger input as a file or URI"
        raise RayConfigError("entrypoint", f"{size} bytes", expected)


def _check_resources(spec: JobSpec) -> None:
    """Reject what Ray stores and cannot schedule (NaN, less than 0), or what its supervisor fails on."""
    custom = spec.entrypoint_resources or {}
    amounts = {f"entrypoint_{name}": getattr(spec, f"entrypoint_{name}") for name in ("num_cpus", "num_gpus", "memory")}
    amounts |= {f"entrypoint_resources[{key!r}]": amount for key, amount in custom.items()}
    for name, amount in amounts.items():
        if 0 < (number(name, amount) or 0) < SMALLEST_AMOUNT:
            raise RayConfigError(name, repr(amount), f"0, or at least {SMALLEST_AMOUNT}, the smallest amount of Ray")
    if own := [name for name in OWN_ARGUMENTS if name in custom]:
        raise RayConfigError("entrypoint_resources", repr(own[0]), OWN_ARGUMENTS[own[0]])


def _check_sizes(spec: JobSpec) -> None:
    """What Linux or Ray would refuse only once the job exists."""
    config = {"runtime_env": dict(spec.runtime_env), "metadata": dict(spec.metadata)}
    size = len(as_json("runtime_env", config))
    if size > CONFIG_LIMIT_BYTES:
        largest, bytes_of_it = _largest(spec)
        got = f"{size} bytes as JSON, {bytes_of_it} of them in {largest}"
        expected = f"at most {CONFIG_LIMIT_BYTES}, since Linux caps one environment variable at 128 KiB, and Ray hands "
        raise RayConfigError(
            "runtime_env and metadata", got, f"{expected}both to the job in one; pass larger values as a file or URI"
        )
    if (size := len(as_json("entrypoint_resources", spec.to_json()))) > REQUEST_LIMIT_BYTES:
        raise RayConfigError("the job", f"{size} bytes as JSON", f"at most {REQUEST_LIMIT_BYTES}, the limit of Ray")


def _largest(spec: JobSpec) -> tuple[str, int]:
    """The part of runtime_env or metadata that is the largest as JSON."""
    rest = {key: value for key, value in spec.runtime_env.items() if key != "env_vars"}
    parts = {
        **{f"runtime_env[{key!r}]": value for key, value in rest.items()},
        **{
            f"runtime_env['env_vars'][{key!r}]": value
            for key, value in (spec.runtime_env.get("env_vars") or {}).items()
        },
        **{f"metadata[{key!r}]": value for key, value in spec.metadata.items()},
    }
    sizes = {name: len(json.dumps(value)) for name, value in parts.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    return largest[:200], sizes[largest]
