"""Submit a job to a Ray cluster."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from time import time
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import mask_secret
from airflow.sdk import conf

from airflow_provider_ray.client.durations import later, optional_seconds, seconds
from airflow_provider_ray.clusters import selection
from airflow_provider_ray.compat.tasks import RedactsRenderedFields, is_trigger_failure
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.jobs import exit_codes, memory
from airflow_provider_ray.jobs.attempt import Attempt, CurrentJob
from airflow_provider_ray.jobs.definition import JobDefinition, hidden, log_spec, secrets_of
from airflow_provider_ray.jobs.encryption import encrypt
from airflow_provider_ray.links import RayJobLink
from airflow_provider_ray.task_log.position import XComPosition
from airflow_provider_ray.triggers.base import SUBMITTED
from airflow_provider_ray.triggers.job import RayJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_ray.client.api.job_spec import JobSpec
    from airflow_provider_ray.client.jobs.outcome import Outcome
    from airflow_provider_ray.clusters.selection import Clusters, Strategy


class RaySubmitJobOperator(RedactsRenderedFields):
    """Submit a job to a Ray cluster and, by default, wait for it to finish.

    The job's id is remembered before the job is submitted: a retry resumes a job that is still active or has
    succeeded, and submits another one only if the earlier one failed or was stopped, or if the task was cleared. Given
    several clusters, a retry goes to another one if the first is unavailable or has lost the job; a job that may still
    be running there is stopped as soon as its cluster can be reached. A job whose task is killed or exceeds ``timeout``
    is stopped. In every mode, the XCom is ``{"conn_id", "submission_id"}`` of the job whose result is used.

    :param entrypoint: shell command of the driver, or a list of arguments that are quoted one by one. (templated)
    :param parameters: JSON-serializable (:func:`~airflow_provider_ray.client.values.plain` says what that includes);
        appended to the entrypoint as one quoted argument, which a Python driver reads with
        ``json.loads(sys.argv[1])``. (templated)
    :param runtime_env: Ray's runtime environment; a local ``working_dir`` is zipped and uploaded, and requirements and
        conda files are sent by content. Values of ``env_vars`` do not appear in the rendered template. (templated)
    :param metadata: strings to find the job by; the task's own identity is added. (templated)
    :param submission_id: id of the job; by default one that names the task and is unique. (templated)
    :param entrypoint_num_cpus: CPUs reserved for the driver; None leaves Ray's default, 0. (templated)
    :param entrypoint_num_gpus: GPUs reserved for the driver; None leaves Ray's default, 0. (templated)
    :param entrypoint_memory: bytes reserved for the driver; None leaves Ray's default, 0. (templated)
    :param entrypoint_resources: custom resources reserved for the driver, None for none. (templated)
    :param entrypoint_label_selector: labels of the node for the driver, Ray 2.54+. (templated)
    :param stop_grace: seconds between SIGTERM and SIGKILL when the job is stopped; None leaves Ray's 3.
    :param conn_id: connections of type ``ray`` to choose from: an id, a list of ids, a comma-separated string, or a
        label selector such as ``site=hpc,gpu=true``. (templated)
    :param strategy: how to choose: ``first_healthy`` in the given order, ``least_loaded``, or ``round_robin`` by map
        index. A cluster that has failed the task comes last.
    :param wait_for_completion: False returns once the job is submitted; nothing watches it after that.
    :param deferrable: let the triggerer submit and wait; default ``[operators] default_deferrable``. If the connection
        has ``max_jobs``, the triggerer always submits.
    :param poll_interval: longest time between two checks of the job, in seconds or as a ``timedelta``.
    :param startup_timeout: seconds until a job that is still PENDING is stopped and the task fails; None for no limit,
        but Ray itself gives up after its ``RAY_JOB_START_TIMEOUT_SECONDS`` (900) as long as the head's agent runs.
    :param timeout: seconds until a job that has not ended is stopped and the task fails; None for no limit. Unlike
        ``execution_timeout`` it also holds while deferred. Waiting for room on a cluster does not count.
    :param room_timeout: seconds to wait for room on a cluster whose connection has ``max_jobs``; then the task fails,
        and nothing is submitted. None for no limit.
    :param fetch_logs: write the driver log to the task log while the job runs.
    :param skip_on_exit_code: exit codes of the driver that skip the task instead of failing it.
    :param fail_on_exit_code: exit codes of the driver that fail the task without a retry.
    :param cancel_on_kill: stop the job when the task is killed or marked failed or success, or its worker is
        terminated; False leaves it running, unless the task is cleared while no worker holds it: the job is then
        stopped before another one is submitted.
    :param durable: remember the job, so that a retry resumes it, and which cluster failed; False submits a new job in
        each attempt.
    :raises RayConfigError: in the Dag file, or before anything is submitted, when an argument cannot work.
    :raises RayRequestError: when the cluster rejects the request, or is unavailable for longer than ``[ray]
        fault_budget``; when none of several clusters is healthy.
    :raises RayTriggerError: when the triggerer could not submit or watch the job.
    :raises RayJobFailed: when the job failed.
    :raises AirflowSkipException: when the driver exited with one of ``skip_on_exit_code``.
    :raises AirflowFailException: when the driver exited with one of ``fail_on_exit_code``.
    :raises RayJobStopped: when the job was stopped.
    :raises RayJobInterrupted: when the job was stopped because the task's process was terminated.
    :raises RayJobStopping: when an earlier job, of a cleared task or past its ``timeout``, has not stopped yet.
    :raises RayJobLost: when the cluster has forgotten the job, or the node of its driver is gone.
    :raises RayJobTimeout: when the job did not end within ``timeout``, did not start within ``startup_timeout``, or
        found no room within ``room_timeout``.
    """

    template_fields: Sequence[str] = (
        "conn_id",
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
        "entrypoint": "bash",
        "parameters": "json",
        "runtime_env": "json",
        "metadata": "json",
        "entrypoint_resources": "json",
        "entrypoint_label_selector": "json",
    }
    operator_extra_links = (RayJobLink(),)
    ui_color = "#dff1fb"

    def __init__(
        self,
        *,
        entrypoint: str | Sequence[Any],
        parameters: Any = None,
        runtime_env: Mapping[str, Any] | str | None = None,
        metadata: Mapping[str, Any] | str | None = None,
        submission_id: str | None = None,
        entrypoint_num_cpus: float | str | None = None,
        entrypoint_num_gpus: float | str | None = None,
        entrypoint_memory: float | str | None = None,
        entrypoint_resources: Mapping[str, float | str] | str | None = None,
        entrypoint_label_selector: Mapping[str, Any] | str | None = None,
        stop_grace: float | timedelta | None = None,
        conn_id: Clusters = RayHook.default_conn_name,
        strategy: Strategy = "first_healthy",
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta = 10,
        startup_timeout: float | timedelta | None = None,
        timeout: float | timedelta | None = None,
        room_timeout: float | timedelta | None = None,
        fetch_logs: bool = True,
        skip_on_exit_code: int | Collection[int] = (),
        fail_on_exit_code: int | Collection[int] = (),
        cancel_on_kill: bool = True,
        durable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        selection.check_clusters(conn_id)
        selection.check_strategy(strategy)
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
        self.stop_grace = optional_seconds("stop_grace", stop_grace)
        self.conn_id = conn_id
        self.strategy = strategy
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = seconds("poll_interval", poll_interval)
        self.startup_timeout = optional_seconds("startup_timeout", startup_timeout)
        self.timeout = optional_seconds("timeout", timeout)
        self.room_timeout = optional_seconds("room_timeout", room_timeout)
        self.fetch_logs = fetch_logs
        self.skip_on_exit_code = exit_codes.parse("skip_on_exit_code", skip_on_exit_code)
        self.fail_on_exit_code = exit_codes.parse("fail_on_exit_code", fail_on_exit_code)
        self.cancel_on_kill = cancel_on_kill
        self.durable = durable
        JobDefinition(**self._definition()).check_literals(submission_id)
        self._attempt: Attempt | None = None
        # Airflow may call on_kill before execute, while it renders templates.
        self._is_killed = False

    def execute(self, context: Context) -> dict[str, str]:
        """Resume an earlier attempt's job or submit one, then wait for its end here or in the triggerer."""
        attempt = self._begin(context)
        with attempt.guarding_jobs():
            while True:
                job = attempt.find_job(self.strategy, self.submission_id)
                spec = None if job.is_adopted else self._spec(context, job)
                self._announce(context, job)
                ready = None if spec is None else self._upload(job, spec)
                attempt.remember(job)
                if self._is_for_the_triggerer(job):
                    self._defer(context, attempt, job, ready)
                if ready is not None:
                    attempt.submit(job, ready)
                if not self.wait_for_completion:
                    return self._release(attempt, job.hook, job.submission_id)
                outcome = self._wait(job)
                if not self._needs_another(attempt, outcome, is_adopted=job.is_adopted):
                    return self._conclude(attempt, job.hook, outcome)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, str]:
        """Turn the trigger's event into the result or error of the blocking mode, or continue in that mode."""
        from airflow_provider_ray.client.errors import RayClusterUnavailable
        from airflow_provider_ray.client.jobs.outcome import Outcome

        attempt, outcome = self._begin(context), Outcome.from_json(event)
        # A cluster that did not answer may still be working on the submission.
        hook = attempt.resume(event, may_arrive=isinstance(outcome.fault, RayClusterUnavailable))
        with attempt.guarding_jobs():
            if event["event"] == SUBMITTED:
                return self._release(attempt, hook, event["submission_id"])
            if not self._needs_another(attempt, outcome, is_adopted=event["adopted"]):
                return self._conclude(attempt, hook, outcome)
        return self.execute(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after the trigger; if it failed without an event, nothing watches the job any longer."""
        if not is_trigger_failure(next_method):
            return super().resume_execution(next_method, next_kwargs, context)
        attempt = self._begin(context)
        attempt.resume_remembered()
        with attempt.guarding_jobs():
            return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Stop the jobs of a task that is killed while it holds a worker."""
        self._is_killed = True
        if self._attempt is not None:
            self._attempt.kill()

    def redact_rendered_fields(self) -> None:
        """Keep secrets out of what Airflow stores and shows."""
        self.runtime_env = hidden(self.runtime_env)
        for secret in secrets_of(self._definition()):
            mask_secret(secret)

    def _begin(self, context: Context) -> Attempt:
        self._attempt = Attempt(
            self,
            context,
            durable=self.durable,
            cancel_on_kill=self.cancel_on_kill,
            clusters=lambda: selection.resolve(self.conn_id),
        )
        self._attempt.is_killed = self._is_killed
        return self._attempt

    def _spec(self, context: Context, job: CurrentJob) -> JobSpec:
        return JobDefinition(**self._definition()).spec(job.submission_id, job.record.metadata(context["ti"]))

    def _definition(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(JobDefinition)}

    def _announce(self, context: Context, job: CurrentJob) -> None:
        """Show where the job will be before it can exist."""
        url = job.hook.get_config().job_url(job.submission_id)
        where = {memory.CONN_ID_KEY: job.hook.conn_id, memory.SUBMISSION_ID_KEY: job.submission_id}
        for key, value in where.items():
            context["ti"].xcom_push(key=key, value=value)
        RayJobLink().store(context["ti"], url)
        doing = f"Resuming the {job.status}" if job.is_adopted else "Submitting"
        self.log.info("%s Ray job %s on %s: %s", doing, job.submission_id, job.hook.conn_id, url)

    def _upload(self, job: CurrentJob, spec: JobSpec) -> JobSpec:
        from airflow_provider_ray.client.jobs.submission import prepare

        log_spec(self.log, spec)
        return job.hook.run(lambda client: prepare(client, spec))

    def _is_for_the_triggerer(self, job: CurrentJob) -> bool:
        """Whether the triggerer takes over: to wait, or to submit where there may be no room yet."""
        waits_for_room = not job.is_adopted and job.hook.get_config().max_jobs is not None
        return waits_for_room or (self.deferrable and self.wait_for_completion)

    def _defer(self, context: Context, attempt: Attempt, job: CurrentJob, spec: JobSpec | None) -> NoReturn:
        fetch_logs = self.fetch_logs and self.wait_for_completion
        if fetch_logs:
            XComPosition.begin(context)
        now = time()
        trigger = RayJobTrigger(
            # Between a trigger that has submitted and a worker that resumes, nothing would watch the job.
            role="owner" if self.wait_for_completion else "submitter",
            conn_id=job.hook.conn_id,
            submission_id=job.submission_id,
            ownership={
                "nonce": job.record.nonce,
                "left_behind": [each.to_json() for each in attempt.left_behind],
                "cancel_on_kill": self.cancel_on_kill,
            },
            submission=None
            if spec is None
            else {
                "spec": encrypt(spec.to_json()),
                "queued_at": now,
                "room_end_time": later(now, self.room_timeout),
            },
            poll_interval=self.poll_interval,
            end_time=later(now, self.timeout),
            startup_end_time=later(now, self.startup_timeout),
            fetch_logs=fetch_logs,
            secrets=encrypt({"secrets": secrets_of(self._definition())}),
        )
        self.defer(trigger=trigger, method_name="execute_complete")

    def _release(self, attempt: Attempt, hook: RayHook, submission_id: str) -> dict[str, str]:
        attempt.release_job()
        return _result(hook, submission_id)

    def _wait(self, job: CurrentJob) -> Outcome:
        from airflow_provider_ray.client.jobs.outcome import watch

        return job.hook.run(
            lambda client: watch(
                client,
                submission_id=job.submission_id,
                poll_interval=self.poll_interval,
                timeout=self.timeout,
                startup_timeout=self.startup_timeout,
                logger=self.log if self.fetch_logs else None,
                owned=True,
            )
        )

    def _needs_another(self, attempt: Attempt, outcome: Outcome, *, is_adopted: bool) -> bool:
        """Whether a resumed job was stopped by the same kill that ended the earlier attempt."""
        if not is_adopted or not outcome.was_stopped or attempt.is_killed:
            return False
        self.log.info("The job of the earlier attempt has been stopped; this attempt submits its own")
        return True

    def _conclude(self, attempt: Attempt, hook: RayHook, outcome: Outcome) -> dict[str, str]:
        """The verdict on a job that is no longer watched."""
        from airflow_provider_ray.client.errors import RayJobFailed, RayJobInterrupted, RayJobStopped

        attempt.note_timeout(outcome)
        try:
            job = outcome.result(hook.conn_id, hook.get_config())
        except RayJobFailed as error:
            exit_codes.raise_for(error, skip=self.skip_on_exit_code, fail=self.fail_on_exit_code)
            raise
        except RayJobStopped as error:
            if attempt.is_killed:
                raise RayJobInterrupted.from_message(f"{error}\nThe task's process was terminated.") from error
            raise
        self.log.info("Ray job %s on %s: %s", job.submission_id, hook.conn_id, job.summary)
        attempt.stop_left_behind()
        return _result(hook, str(job.submission_id))


def _result(hook: RayHook, submission_id: str) -> dict[str, str]:
    """The keyword arguments of a RayJobSensor."""
    return {"conn_id": hook.conn_id, "submission_id": submission_id}
