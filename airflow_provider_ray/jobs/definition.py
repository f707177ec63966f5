"""What a job is: the fields of an operator that say what is submitted, and how Airflow shows them."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.job_spec import JobSpec
    from airflow_provider_ray.compat.tasks import Logger

# Read by Ray's supervisor of the job (Ray 2.49-2.60), whole seconds.
STOP_GRACE_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
SHOWN_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDefinition:
    """A job as its author describes it, with templates rendered.

    The fields are those of :class:`~airflow_provider_ray.operators.job.RaySubmitJobOperator`.
    """

    entrypoint: str | Sequence[str]
    parameters: Any = None
    runtime_env: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] | None = None
    entrypoint_num_cpus: float | str | None = None
    entrypoint_num_gpus: float | str | None = None
    entrypoint_memory: int | str | None = None
    entrypoint_resources: Mapping[str, float] | None = None
    entrypoint_label_selector: Mapping[str, str] | None = None
    stop_grace: float | None = None

    def spec(self, submission_id: str, stamps: Mapping[str, str]) -> JobSpec:
        """What is submitted.

        :param submission_id: id of the job.
        :param stamps: metadata that the author's metadata cannot override.
        :raises RayConfigError: when a field cannot work.
        """
        from airflow_provider_ray.client.api.job_spec import JobSpec, command
        from airflow_provider_ray.client.values import check_strings, number, whole_number

        check_strings("metadata", self.metadata or {})
        return JobSpec(
            entrypoint=command(self.entrypoint, self.parameters),
            submission_id=submission_id,
            runtime_env=self._full_runtime_env(),
            metadata={**(self.metadata or {}), **stamps},
            entrypoint_num_cpus=number("entrypoint_num_cpus", self.entrypoint_num_cpus),
            entrypoint_num_gpus=number("entrypoint_num_gpus", self.entrypoint_num_gpus),
            entrypoint_memory=whole_number("entrypoint_memory", self.entrypoint_memory),
            entrypoint_resources=self.entrypoint_resources,
            entrypoint_label_selector=self.entrypoint_label_selector,
        )

    def _full_runtime_env(self) -> Mapping[str, Any]:
        from airflow_provider_ray.client.values import check_strings

        given = self.runtime_env.data if isinstance(self.runtime_env, HiddenRuntimeEnv) else self.runtime_env or {}
        if self.stop_grace is None or not isinstance(given, Mapping):
            return given
        env_vars = given.get("env_vars") or {}
        check_strings("runtime_env['env_vars']", env_vars)
        return {**given, "env_vars": {**env_vars, STOP_GRACE_VARIABLE: str(ceil(self.stop_grace))}}


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
    if not isinstance(runtime_env, Mapping):
        from airflow_provider_ray.client.errors import RayConfigError

        hint = "a dict; a template for all of it needs render_template_as_native_obj=True in its Dag"
        raise RayConfigError("runtime_env", f"a {type(runtime_env).__name__}", hint)
    return HiddenRuntimeEnv(runtime_env)


def secrets_of(fields: Mapping[str, Any]) -> list[str]:
    """Secrets that a job is given, for Airflow to mask: the driver may print them, and Ray repeats them in errors.

    :param fields: those of a :class:`JobDefinition`, rendered.
    """
    from airflow_provider_ray.client.credentials import find_secrets

    configured = conf.get("core", "sensitive_var_conn_names", fallback="").lower().split(",")
    return sorted(find_secrets(fields, [word.strip() for word in configured if word.strip()]))
