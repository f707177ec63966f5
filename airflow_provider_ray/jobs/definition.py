"""What a job is: the part of an operator that says what is submitted, and how Airflow shows it."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.log import mask_secret

if TYPE_CHECKING:
    from airflow.sdk import Context
    from jinja2 import Environment

    from airflow_provider_ray.client.api.job_spec import JobSpec

# Read by Ray's supervisor of the job (Ray 2.49-2.60), whole seconds.
STOP_GRACE_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
SHOWN_CHARACTERS = 2000


class JobFields(BaseOperator):
    """An operator whose fields describe a job.

    :param entrypoint: shell command of the driver, or a list of arguments that are quoted one by one. (templated)
    :param parameters: JSON-able; appended to the entrypoint as one quoted argument, which a Python driver reads with
        ``json.loads(sys.argv[1])``. (templated)
    :param runtime_env: Ray's runtime environment; a local ``working_dir`` is zipped and uploaded. Values of
        ``env_vars`` do not show in the rendered template. (templated)
    :param metadata: strings to find the job by; the task's own identity is added. (templated)
    :param submission_id: id of the job; by default one that names the task and is unique. (templated)
    :param entrypoint_num_cpus: CPUs reserved for the driver; None leaves Ray's default, 0. (templated)
    :param entrypoint_num_gpus: GPUs reserved for the driver; None leaves Ray's default, 0. (templated)
    :param entrypoint_memory: bytes reserved for the driver; None leaves Ray's default, 0. (templated)
    :param entrypoint_resources: custom resources reserved for the driver, None for none. (templated)
    :param entrypoint_label_selector: labels of the node for the driver, Ray 2.54+. (templated)
    :param stop_grace: seconds that the job has between SIGTERM and SIGKILL when it is stopped; None leaves Ray's 3.
    """

    template_fields: Sequence[str] = (
        "entrypoint",
        "parameters",
        "runtime_env",
        "metadata",
        "submission_id",
        "entrypoint_num_cpus",
        "entrypoint_num_gpus",
        "entrypoint_memory",
        "entrypoint_resources",
        "entrypoint_label_selector",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "parameters": "json",
        "runtime_env": "json",
        "metadata": "json",
        "entrypoint_resources": "json",
        "entrypoint_label_selector": "json",
    }

    def __init__(
        self,
        *,
        entrypoint: str | Sequence[str],
        parameters: Any = None,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        submission_id: str | None = None,
        entrypoint_num_cpus: float | str | None = None,
        entrypoint_num_gpus: float | str | None = None,
        entrypoint_memory: int | str | None = None,
        entrypoint_resources: Mapping[str, float] | None = None,
        entrypoint_label_selector: Mapping[str, str] | None = None,
        stop_grace: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.entrypoint = entrypoint
        self.parameters = parameters
        self.runtime_env = runtime_env
        self.metadata = metadata
        self.submission_id = submission_id
        self.entrypoint_num_cpus = entrypoint_num_cpus
        self.entrypoint_num_gpus = entrypoint_num_gpus
        self.entrypoint_memory = entrypoint_memory
        self.entrypoint_resources = entrypoint_resources
        self.entrypoint_label_selector = entrypoint_label_selector
        self.stop_grace = seconds(stop_grace)

    def job_spec(self, submission_id: str, stamps: Mapping[str, str]) -> JobSpec:
        """What is submitted.

        :param submission_id: id of the job.
        :param stamps: metadata that the author's does not override.
        :raises RayConfigError: when a field cannot work.
        """
        from airflow_provider_ray.client.api.job_spec import JobSpec, check_strings, command, number, whole_number

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

    def log_spec(self, spec: JobSpec) -> None:
        """Write what is submitted to the task log, folded and without the values of env_vars."""
        self.log.info("::group::Ray job %s", spec.submission_id)
        for name, value in spec.to_json().items():
            shown = HiddenRuntimeEnv(value) if name == "runtime_env" else value
            self.log.info("%s: %s", name, str(shown)[:SHOWN_CHARACTERS])
        self.log.info("::endgroup::")

    def _full_runtime_env(self) -> Mapping[str, Any]:
        from airflow_provider_ray.client.api.job_spec import check_strings

        given = self.runtime_env.data if isinstance(self.runtime_env, HiddenRuntimeEnv) else self.runtime_env or {}
        if self.stop_grace is None or not isinstance(given, Mapping):
            return given
        env_vars = given.get("env_vars") or {}
        check_strings("runtime_env['env_vars']", env_vars)
        return {**given, "env_vars": {**env_vars, STOP_GRACE_VARIABLE: str(ceil(self.stop_grace))}}

    # A mapped operator calls this one and not render_template_fields.
    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Environment, seen_oids: set[int]
    ) -> None:
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        if parent is not self or self.runtime_env is None:
            return
        if not isinstance(self.runtime_env, Mapping):
            from airflow_provider_ray.client.errors import RayConfigError

            # Now, before Airflow stores what was rendered.
            hint = "a dict; a template for all of it needs render_template_as_native_obj=True in its Dag"
            raise RayConfigError("runtime_env", f"a {type(self.runtime_env).__name__}", hint)
        self.runtime_env = HiddenRuntimeEnv(self.runtime_env)
        # Those whose names tell that they are secret, in case that the driver prints them.
        if isinstance(env_vars := self.runtime_env.get("env_vars"), Mapping):
            mask_secret(dict(env_vars))


class HiddenRuntimeEnv(UserDict[str, Any]):
    """A rendered runtime_env that keeps the values of env_vars to itself when Airflow stores or shows it."""

    def serialize(self) -> dict[str, Any]:
        hidden = dict(self.data)
        if env_vars := hidden.get("env_vars"):
            hidden["env_vars"] = dict.fromkeys(env_vars, "***") if isinstance(env_vars, Mapping) else "***"
        return hidden

    def __repr__(self) -> str:
        return repr(self.serialize())


def seconds(value: Any) -> Any:
    """A duration as a number."""
    return value.total_seconds() if isinstance(value, timedelta) else value
