"""What a Dag author may set for the tasks of a cluster, which are operators of this package.

Each class names the arguments of one operator, without those that :func:`ray_fan_out` sets itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from airflow_provider_ray.client.errors import RayConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context, RetryPolicy

    Callback: TypeAlias = Callable[[Context], Any]
    Callbacks: TypeAlias = Callback | Sequence[Callback] | None
    Duration: TypeAlias = float | timedelta


class TaskOptions(TypedDict, total=False):
    """Arguments that every Airflow operator has, as ``airflow.sdk.BaseOperator`` describes them.

    Those that affect the structure of the Dag, such as ``trigger_rule``, and those that would hide a result from
    ``merge``, such as ``do_xcom_push``, are left out.
    """

    owner: str
    email: str | Sequence[str] | None
    email_on_retry: bool
    email_on_failure: bool
    retries: int | None
    retry_delay: Duration
    retry_exponential_backoff: float
    max_retry_delay: Duration | None
    retry_policy: RetryPolicy | None
    start_date: datetime | None
    end_date: datetime | None
    depends_on_past: bool
    ignore_first_depends_on_past: bool
    wait_for_past_depends_before_skipping: bool
    wait_for_downstream: bool
    params: Mapping[str, Any] | None
    priority_weight: int
    weight_rule: Any
    queue: str
    pool: str | None
    pool_slots: int
    execution_timeout: timedelta | None
    on_execute_callback: Callbacks
    on_failure_callback: Callbacks
    on_success_callback: Callbacks
    on_retry_callback: Callbacks
    on_skipped_callback: Callbacks
    pre_execute: Callback | None
    post_execute: Callable[[Context, Any], Any] | None
    run_as_user: str | None
    map_index_template: str | None
    max_active_tis_per_dag: int | None
    max_active_tis_per_dagrun: int | None
    executor: str | None
    executor_config: Mapping[str, Any] | None
    inlets: Any
    outlets: Any
    doc: str | None
    doc_md: str | None
    doc_json: str | None
    doc_yaml: str | None
    doc_rst: str | None
    task_display_name: str | None
    logger_name: str | None
    render_template_as_native_obj: bool | None


class _Entrypoint(TypedDict):
    entrypoint: str | Sequence[Any]


class JobOptions(_Entrypoint, TaskOptions, total=False):
    """Arguments of the task ``submit``, a :class:`~airflow_provider_ray.operators.job.RaySubmitJobOperator`.

    ``conn_id``, ``parameters``, ``submission_id`` and ``wait_for_completion`` are set by :func:`ray_fan_out`.

    :param entrypoint: shell command of the driver, or a list of arguments, each of which is quoted. Required.
        (templated)
    :param runtime_env: Ray's runtime environment; a local ``working_dir`` is zipped and uploaded, and requirements and
        conda files are sent by content. (templated)
    :param metadata: strings to find the job by. (templated)
    :param entrypoint_num_cpus: CPUs reserved for the driver. (templated)
    :param entrypoint_num_gpus: GPUs reserved for the driver. (templated)
    :param entrypoint_memory: bytes reserved for the driver. (templated)
    :param entrypoint_resources: custom resources reserved for the driver. (templated)
    :param entrypoint_label_selector: labels of the node for the driver. (templated)
    :param stop_grace: time between SIGTERM and SIGKILL when the job is stopped.
    :param cancel_on_kill: stop the job when the task is killed.
    :param durable: remember the job, so that a retry resumes it.
    :param deferrable: let the triggerer submit the job and wait for it.
    :param poll_interval: longest time between two checks of the job.
    :param startup_timeout: time after which a job that is still PENDING is stopped.
    :param timeout: time after which a job that has not ended is stopped.
    :param room_timeout: how long to wait for room on a cluster whose connection has ``max_jobs``.
    :param fetch_logs: write the driver log to the task log.
    :param skip_on_exit_code: exit codes of the driver that skip the task.
    :param fail_on_exit_code: exit codes of the driver that fail the task without a retry.
    """

    runtime_env: Mapping[str, Any] | str | None
    metadata: Mapping[str, Any] | str | None
    entrypoint_num_cpus: float | str | None
    entrypoint_num_gpus: float | str | None
    entrypoint_memory: float | str | None
    entrypoint_resources: Mapping[str, float | str] | str | None
    entrypoint_label_selector: Mapping[str, Any] | str | None
    stop_grace: Duration | None
    cancel_on_kill: bool
    durable: bool
    deferrable: bool
    poll_interval: Duration
    startup_timeout: Duration | None
    timeout: Duration | None
    room_timeout: Duration | None
    fetch_logs: bool
    skip_on_exit_code: int | Collection[int]
    fail_on_exit_code: int | Collection[int]


class CallOptions(TaskOptions, total=False):
    """Arguments of the tasks ``collect`` and ``release``.

    Both are a :class:`~airflow_provider_ray.operators.serve.RayServeOperator`. ``conn_id``, ``application`` and
    ``submission_id`` are set by :func:`ray_fan_out`.

    :param path: path below the application's route prefix. (templated)
    :param method: GET, POST, PUT or DELETE; default GET for ``collect`` and POST for ``release``. (templated)
    :param data: JSON-serializable body. (templated)
    :param headers: additional headers. (templated)
    :param request_timeout: limit for one call.
    :param timeout: limit for waiting and repeated calls together; default a day for ``collect``, a minute for
        ``release``.
    :param poll_interval: longest time between two checks.
    :param max_answer_bytes: largest answer accepted into XCom, in bytes.
    :param deferrable: wait in the triggerer; default True for ``collect``.
    """

    path: str
    method: str
    data: Any
    headers: Mapping[str, str] | None
    request_timeout: Duration
    timeout: Duration
    poll_interval: Duration
    max_answer_bytes: int
    deferrable: bool


def check_options(field: str, given: Any, kind: Any) -> None:
    """Reject arguments that the operator does not have, or that :func:`ray_fan_out` sets itself.

    :param field: what the author calls the arguments.
    :param given: the arguments by name.
    :param kind: :class:`JobOptions` or :class:`CallOptions`.
    :raises RayConfigError: naming those that are unknown, or required and missing.
    """
    names = kind.__required_keys__ | kind.__optional_keys__
    own = sorted(names - TaskOptions.__optional_keys__)
    if not isinstance(given, Mapping):
        raise RayConfigError(field, f"{given!r} of type {type(given).__name__}", f"a dict with some of {own}")
    if unknown := sorted(set(given) - names, key=str):
        raise RayConfigError(field, f"{unknown}", f"some of {own}, or arguments of every task such as 'retries'")
    if missing := sorted(kind.__required_keys__ - set(given)):
        raise RayConfigError(field, f"nothing for {missing}", "a value")
