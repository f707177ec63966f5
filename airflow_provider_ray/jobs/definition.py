"""What a job is: the fields of an operator that say what is submitted, and how Airflow shows them."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import ceil
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

from airflow_provider_ray.compat.templates import is_literal, value_of

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.job_spec import JobSpec
    from airflow_provider_ray.compat.tasks import Logger

# Read by Ray's supervisor of the job (Ray 2.49-2.60), whole seconds.
STOP_GRACE_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
SHOWN_CHARACTERS = 2000
# Fields besides runtime_env that are a dict, or a template of one.
MAPPINGS = ("metadata", "entrypoint_resources", "entrypoint_label_selector")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDefinition:
    """A job as its author describes it, with templates rendered.

    The fields are those of :class:`~airflow_provider_ray.operators.job.RaySubmitJobOperator`.
    """

    entrypoint: str | Sequence[Any]
    parameters: Any = None
    runtime_env: Mapping[str, Any] | str | None = None
    metadata: Mapping[str, Any] | str | None = None
    entrypoint_num_cpus: float | str | None = None
    entrypoint_num_gpus: float | str | None = None
    entrypoint_memory: float | str | None = None
    entrypoint_resources: Mapping[str, float | str] | str | None = None
    entrypoint_label_selector: Mapping[str, Any] | str | None = None
    stop_grace: float | None = None

    def spec(self, submission_id: str, stamps: Mapping[str, str]) -> JobSpec:
        """What is submitted.

        :param submission_id: id of the job.
        :param stamps: metadata that the author's metadata cannot override.
        :raises RayConfigError: when a field cannot work.
        """
        from airflow_provider_ray.client.api.job_spec import JobSpec
        from airflow_provider_ray.client.values import strings

        given: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        grace = given.pop("stop_grace")
        runtime_env = mapping("runtime_env", given.pop("runtime_env"))
        if grace is not None:
            env_vars = strings(
                "runtime_env['env_vars']", mapping("runtime_env['env_vars']", runtime_env.get("env_vars"))
            )
            runtime_env = {**runtime_env, "env_vars": {**env_vars, STOP_GRACE_VARIABLE: str(ceil(grace))}}
        given |= {name: mapping(name, given[name]) for name in MAPPINGS}
        given["metadata"] = {**given["metadata"], **stamps}
        return JobSpec.given(submission_id=submission_id, runtime_env=runtime_env, **given)

    def check_literals(self, submission_id: str | None) -> None:
        """Reject in the Dag file what cannot work, as far as it is known there; no file is looked at.

        :param submission_id: the author's choice of an id.
        :raises RayConfigError: when a field cannot work.
        """
        from airflow_provider_ray.client.api.job_spec import JobSpec

        known = {field.name: value for field in fields(self) if is_literal(value := getattr(self, field.name))}
        known |= {name: mapping(name, known[name]) for name in (*MAPPINGS, "runtime_env") if name in known}
        known.pop("stop_grace", None)
        chosen = submission_id if submission_id and is_literal(submission_id) else "unknown"
        JobSpec.given(**{"entrypoint": "unknown", "submission_id": chosen, **known})


def mapping(field: str, given: Any) -> Mapping[str, Any]:
    """A dict, also from a template of all of it, which renders to text.

    :raises RayConfigError: when it is not a dict.
    """
    from airflow_provider_ray.client.errors import RayConfigError

    if given is None or given == "":
        return {}
    found = value_of(given)
    if found is not None and not isinstance(found, Mapping):
        # The text may hold secrets.
        expected = f"a dict, or a template of one, such as '{{{{ params.{field.partition('[')[0]} }}}}'"
        raise RayConfigError(field, f"a {type(given).__name__}", expected)
    return found or {}


def log_spec(log: Logger, spec: JobSpec) -> None:
    """Write what is submitted to the task log, in a collapsed group and without the values of env_vars."""
    log.info("::group::Ray job %s", spec.submission_id)
    for name, value in spec.to_json().items():
        shown = HiddenRuntimeEnv(value) if name == "runtime_env" else value
        log.info("%s: %s", name, str(shown)[:SHOWN_CHARACTERS])
    log.info("::endgroup::")


class HiddenRuntimeEnv(UserDict[str, Any]):
    """A rendered runtime_env that keeps env_vars and other credentials to itself when Airflow stores or shows it."""

    def serialize(self) -> dict[str, Any]:
        """What Airflow stores."""
        from airflow_provider_ray.client.credentials import HIDDEN, without_secrets

        hidden: dict[str, Any] = without_secrets(self.data)
        if env_vars := hidden.get("env_vars"):
            hidden["env_vars"] = dict.fromkeys(env_vars, HIDDEN) if isinstance(env_vars, Mapping) else HIDDEN
        return hidden

    def __repr__(self) -> str:
        return repr(self.serialize())


def hidden(runtime_env: Any) -> HiddenRuntimeEnv | None:
    """A rendered runtime_env for Airflow to store.

    :raises RayConfigError: when it is not a dict.
    """
    if runtime_env is None:
        return None
    shown = dict(mapping("runtime_env", runtime_env))
    if shown.get("env_vars"):
        shown["env_vars"] = dict(mapping("runtime_env['env_vars']", shown["env_vars"]))
    return HiddenRuntimeEnv(shown)


def secrets_of(fields: Mapping[str, Any]) -> list[str]:
    """Secrets that a job is given, for Airflow to mask: the driver may print them, and Ray repeats them in errors.

    :param fields: those of a :class:`JobDefinition`, rendered.
    """
    from airflow_provider_ray.client.credentials import find_secrets

    configured = conf.get("core", "sensitive_var_conn_names", fallback="").lower().split(",")
    return sorted(find_secrets(fields, [word.strip() for word in configured if word.strip()]))
