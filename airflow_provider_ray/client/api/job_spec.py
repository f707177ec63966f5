"""A job as it is submitted: everything that can be wrong with it is found before anything is sent."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.values import as_json, check_strings, number, utf8

# Ray hands the entrypoint to `sh -c` as one argument; Linux caps one argument at 128 KiB (MAX_ARG_STRLEN).
ENTRYPOINT_LIMIT_BYTES = 128 * 1024 - 1
SUBMISSION_ID_LIMIT = 200
# Ray's head passes the request on with the fields that are null, and its agent takes 1 MiB, aiohttp's default
# (client_max_size, Ray 2.49-2.60).
REQUEST_LIMIT_BYTES = 1024 * 1024 - 512
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
        check_strings("metadata", self.metadata)
        if not isinstance(self.runtime_env, Mapping):
            raise RayConfigError("runtime_env", type(self.runtime_env).__name__, "a dict")
        _check_local_paths(self.runtime_env)
        check_strings("runtime_env['env_vars']", self.runtime_env.get("env_vars") or {})
        as_json("runtime_env", dict(self.runtime_env))
        if self.entrypoint_label_selector is not None:
            check_strings("entrypoint_label_selector", self.entrypoint_label_selector)
        _check_size(self)

    def to_json(self) -> dict[str, Any]:
        """The request's body; Ray rejects unknown keys, including those that an older release does not know yet."""
        body = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in body.items()}
        return {name: value for name, value in plain.items() if value not in (None, {})}


def command(entrypoint: str | Sequence[str], parameters: Any = None) -> str:
    """The shell command for an entrypoint and its parameters.

    :param entrypoint: a shell command as it is, or a list of arguments that are quoted one by one.
    :param parameters: JSON-serializable; appended as one quoted argument, pure ASCII so that no locale can change it.
    :raises RayConfigError: when the entrypoint is empty or the parameters are not JSON.
    """
    if isinstance(entrypoint, str):
        line = entrypoint
    elif isinstance(entrypoint, Sequence) and all(isinstance(part, str) for part in entrypoint):
        line = shlex.join(entrypoint)
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


def _check_size(spec: JobSpec) -> None:
    """Ray answers a request that is too large with a 500 that says nothing of the limit."""
    sizes = {name: len(json.dumps(value, default=str)) for name, value in spec.to_json().items()}
    size = len(json.dumps(dict.fromkeys(sizes, ""))) + sum(sizes.values())
    if size > REQUEST_LIMIT_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        expected = f"at most {REQUEST_LIMIT_BYTES}, which Ray takes in all; pass larger input as a file or URI"
        raise RayConfigError(largest, f"{sizes[largest]} of the {size} bytes of the job as JSON", expected)


def _check_local_paths(runtime_env: Mapping[str, Any]) -> None:
    """Only working_dir is uploaded; Ray would look for other local paths on the cluster, and fail the job."""
    for name in ("pip", "uv"):
        if isinstance(runtime_env.get(name), str):
            raise RayConfigError(f"runtime_env[{name!r}]", repr(runtime_env[name]), "a list of packages, not a file")
    modules = runtime_env.get("py_modules") or ()
    if local := [module for module in modules if "://" not in str(module)]:
        raise RayConfigError("runtime_env['py_modules']", f"local {local}", "URIs; local code goes into working_dir")


def _check_resources(spec: JobSpec) -> None:
    """Ray stores what it cannot schedule (NaN, less than 0) and refuses strings only after the upload."""
    resources = spec.entrypoint_resources or {}
    if not isinstance(resources, Mapping):
        raise RayConfigError("entrypoint_resources", type(resources).__name__, "a dict of numbers")
    amounts = {f"entrypoint_{name}": getattr(spec, f"entrypoint_{name}") for name in ("num_cpus", "num_gpus", "memory")}
    amounts |= {f"entrypoint_resources[{key!r}]": amount for key, amount in resources.items()}
    if missing := [key for key, amount in resources.items() if not key or amount is None]:
        raise RayConfigError("entrypoint_resources", f"{missing} without a name or an amount", "names with numbers")
    for name, amount in amounts.items():
        if isinstance(amount, str) or (name == "entrypoint_memory" and not isinstance(amount, int | None)):
            raise RayConfigError(name, repr(amount), "a number; for memory, a whole number")
        number(name, amount)
