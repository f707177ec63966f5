"""A runtime environment as authors write it, and as a cluster can use it (Ray 2.49-2.60).

A cluster cannot see the files of the Airflow worker. Requirements and conda files are replaced by their content, and
``working_dir`` is uploaded by :mod:`airflow_provider_ray.client.jobs.packaging`; other paths of the worker are refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from airflow_provider_ray.client.credentials import without_secrets
from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.values import plain, strings, utf8

log = logging.getLogger(__name__)

# Ray ignores keys that it does not know, which may be those of a plugin or of a newer release.
KNOWN_KEYS: Mapping[str, Collection[str]] = {
    "runtime_env": (
        *("working_dir", "py_modules", "excludes", "pip", "uv", "conda", "env_vars", "config", "py_executable"),
        *("java_jars", "container", "image_uri", "worker_process_setup_hook", "nsight", "_nsight", "rocprof_sys"),
        *("_rocprof_sys", "_ray_release", "_ray_commit", "_inject_current_ray"),
    ),
    "config": ("setup_timeout_seconds", "eager_install", "log_files"),
    "pip": ("packages", "pip_check", "pip_version", "pip_install_options"),
    "uv": ("packages", "uv_check", "uv_version", "uv_pip_install_options"),
}
# Ways to describe the packages of a job, of which Ray takes one.
PACKAGES = ("pip", "uv", "conda")
# Linux caps one string of an environment at 128 KiB (MAX_ARG_STRLEN), with its name, "=" and the final NUL.
VARIABLE_LIMIT_BYTES = 128 * 1024 - 1
_FILE_OPTION = re.compile(r"(?:-[rcef]\s*|--(?:requirement|constraint|editable|find-links)[\s=]\s*)(?P<path>\S+)")
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz")


def read_runtime_env(given: Any) -> dict[str, Any]:
    """The runtime environment in types of JSON, without looking at any file.

    :param given: as the author wrote it.
    :raises RayConfigError: naming the field, what it held and what was expected.
    """
    if not isinstance(given, Mapping):
        raise RayConfigError("runtime_env", f"a {type(given).__name__}", "a dict")
    env: dict[str, Any] = plain("runtime_env", given)
    if env.get("env_vars") is not None:
        env["env_vars"] = strings("runtime_env['env_vars']", env["env_vars"])
        check_env_vars(env)
    if len(several := [name for name in PACKAGES if env.get(name)]) > 1:
        raise RayConfigError("runtime_env", f"{' and '.join(several)}", "one of them; conda may have pip packages")
    for name in ("py_modules", "java_jars"):
        if local := [path for path in _listed(f"runtime_env[{name!r}]", env.get(name)) if "://" not in path]:
            hint = "URIs, because the cluster cannot see this path; local code goes into working_dir"
            raise RayConfigError(f"runtime_env[{name!r}]", f"local {without_secrets(local)}", hint)
    _check_packages(env)
    return env


def with_contents(env: Mapping[str, Any]) -> dict[str, Any]:
    """The runtime environment with the content of the requirements and conda files of this host that it names.

    Unknown keys are named in a warning.

    :param env: from :func:`read_runtime_env`.
    :raises RayConfigError: when a file cannot be read, or leads to another file of this host.
    """
    _warn_of_unknown_keys(env)
    contents = {name: _with_content(f"runtime_env[{name!r}]", name, env[name]) for name in PACKAGES if env.get(name)}
    _check_packages(contents)
    return {**env, **contents}


def check_env_vars(runtime_env: Mapping[str, Any]) -> None:
    """Reject variables that no process can have. Ray notices while it starts the job, which then stays PENDING.

    :raises RayConfigError: naming the variable, but not its value.
    """
    for key, value in (runtime_env.get("env_vars") or {}).items():
        field = f"runtime_env['env_vars'][{key[:100]!r}]"
        if not key or "=" in key or "\0" in key:
            raise RayConfigError(field, "this name", "a name of at least one character, without '=' and NUL")
        if "\0" in value:
            raise RayConfigError(field, "a NUL character", "a value without one")
        if (size := len(utf8(field, f"{key}={value}"))) > VARIABLE_LIMIT_BYTES:
            expected = f"at most {VARIABLE_LIMIT_BYTES} with the name, the limit of Linux; pass it as a file or URI"
            raise RayConfigError(field, f"{size} bytes", expected)


def _warn_of_unknown_keys(env: Mapping[str, Any]) -> None:
    for field, known in KNOWN_KEYS.items():
        section = env if field == "runtime_env" else env.get(field)
        for key in sorted(set(section) - set(known)) if isinstance(section, Mapping) else ():
            nearest = get_close_matches(key, known, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            place = field if field == "runtime_env" else f"runtime_env[{field!r}]"
            log.warning("%s has a key that Ray 2.60 does not know, %r%s", place, key, hint)


def _listed(field: str, given: Any) -> list[str]:
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise RayConfigError(field, repr(without_secrets(given))[:200], "a list of strings")
    return given


def _with_content(field: str, name: str, given: Any) -> Any:
    """What a file of this host says, wherever one is named in place of packages."""
    if name == "conda":
        # Any other string is the name or the folder of an environment on the cluster.
        is_file = isinstance(given, str) and given.endswith((".yml", ".yaml"))
        return _conda_file(field, given) if is_file else given
    if isinstance(given, str):
        return _requirements(field, given)
    if isinstance(given, dict) and isinstance(given.get("packages"), str):
        return {**given, "packages": _requirements(f"{field}['packages']", given["packages"])}
    return given


def _requirements(field: str, path: str) -> list[str]:
    return [line for line in _text(field, path, "a list of packages, or a requirements file").splitlines() if line]


def _conda_file(field: str, path: str) -> dict[str, Any]:
    import yaml

    expected = "a dict, the name of an environment on the cluster, or a conda file"
    try:
        content = yaml.safe_load(_text(field, path, expected))
    except yaml.YAMLError as error:
        # The error quotes the file, which may hold the token of a channel.
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark else ""
        raise RayConfigError(field, f"{path!r}, which is not YAML{place}", expected) from None
    if not isinstance(content, dict):
        raise RayConfigError(field, f"{path!r}, which holds a {type(content).__name__}", "a conda file with a mapping")
    environment: dict[str, Any] = plain(field, content)
    return environment


def _text(field: str, path: str, expected: str) -> str:
    try:
        return Path(path).expanduser().read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise RayConfigError(field, f"{path!r} ({error})", f"{expected} on the Airflow worker") from error


def _check_packages(env: Mapping[str, Any]) -> None:
    for name in PACKAGES:
        for entry in _entries(env.get(name)):
            if path := _path_of_this_host(entry):
                hint = "ship the file in working_dir, where it is ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/<path>"
                unseen = repr(without_secrets(path))
                expected = f"packages, URLs or absolute paths on the cluster, which cannot see {unseen}; {hint}"
                raise RayConfigError(f"runtime_env[{name!r}]", repr(without_secrets(entry)), expected)


def _entries(given: Any) -> Iterator[str]:
    """The lines for pip or uv in any of the forms that Ray takes."""
    if isinstance(given, dict):
        for inner in (given.get("packages"), given.get("pip"), *_dicts(given.get("dependencies"))):
            yield from _entries(inner)
    elif isinstance(given, list):
        yield from (entry for entry in given if isinstance(entry, str))


def _dicts(given: Any) -> list[dict[str, Any]]:
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []


def _path_of_this_host(entry: str) -> str | None:
    """The relative path that a requirement leads to, if any."""
    requirement = entry.split(" #", 1)[0].split(";", 1)[0].strip()
    option = _FILE_OPTION.match(requirement)
    path = option["path"].strip("\"'") if option else requirement
    if not option and not path.startswith((".", "~")) and not path.endswith(_ARCHIVES):
        return None
    return None if path.startswith(("/", "$")) or ":" in path or " @ " in path else path
