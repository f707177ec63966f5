"""Submit a job to a Ray cluster."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_ray import durable
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.job_fields import JobFields, seconds
from airflow_provider_ray.links import RayJobLink
from airflow_provider_ray.retry_policy import is_retried_after
from airflow_provider_ray.target import Target
from airflow_provider_ray.triggers.job import RayJobTrigger, seal

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_ray.client.jobspec import JobSpec
    from airflow_provider_ray.client.models import JobDetails
    from airflow_provider_ray.client.outcome import Outcome
    from airflow_provider_ray.durable import TaskJob

# Airflow kills the process of a task that was marked or cleared five seconds after on_kill began.
KILL_SECONDS = 4.0


class RaySubmitJobOperator(JobFields):
    """Submit a job to a Ray cluster and, unless told otherwise, wait for its end.

    The job's id is remembered before the job is submitted: a retry goes on with a job that is still active or has
    succeeded, and submits anew only when the earlier one failed, was stopped, or the task was cleared. A job whose
    task is killed or runs into ``timeout`` is stopped. The XCom is ``{"conn_id", "submission_id"}``, in every mode.

    What the job is, from ``entrypoint`` to ``stop_grace``, is described by the parameters of
    :class:`~airflow_provider_ray.job_fields.JobFields`.

    :param conn_id: connection of type ``ray``. (templated)
    :param wait_for_completion: False returns once the job is submitted; nobody watches it then.
    :param deferrable: let the triggerer submit and wait; default ``[operators] default_deferrable``.
    :param poll_interval: longest time between two looks at the job, in seconds.
    :param startup_timeout: seconds until a job that is still PENDING is stopped and the task fails; None for no limit,
        but Ray itself gives up after its ``RAY_JOB_START_TIMEOUT_SECONDS`` (900) while the agent of its head lives.
    :param timeout: seconds until a job that has not ended is stopped and the task fails; None for no limit. Unlike
        ``execution_timeout`` it also holds while deferred.
    :param fetch_logs: write the driver's log to the task log while the job runs.
    :param cancel_on_kill: stop the job when the task is killed, marked or its worker is terminated; False leaves it
        running, unless the task is cleared when it is not on a worker: the job is then stopped before there is another.
    :param durable: remember the job, so that a retry goes on with it; False submits anew in each attempt.
    :param skip_on_exit_code: exit codes of the driver that skip the task instead of failing it.
    :param fail_on_exit_code: exit codes of the driver that fail the task without a retry.
    :raises RayConfigError: before anything is submitted, when a field cannot work.
    :raises RayRequestError: when the cluster refuses us, or is not available for two minutes.
    :raises RayTriggerError: when the triggerer could not do its part.
    :raises RayJobFailed: when the job failed.
    :raises AirflowSkipException: when the driver ended with one of ``skip_on_exit_code``.
    :raises AirflowFailException: when the driver ended with one of ``fail_on_exit_code``.
    :raises RayJobStopped: when somebody stopped the job.
    :raises RayJobInterrupted: when the job was stopped because the process of the task was told to end.
    :raises RayJobStopping: when an earlier job of a cleared task was told to stop and has not ended.
    :raises RayJobLost: when the cluster has forgotten the job, or the node of its driver is gone.
    :raises RayJobTimeout: when the job had not ended within ``timeout``, or not started within ``startup_timeout``.
    """

    template_fields: Sequence[str] = ("conn_id", *JobFields.template_fields)
    operator_extra_links = (RayJobLink(),)
    ui_color = "#dff1fb"

    def __init__(
        self,
        *,
        conn_id: str = RayHook.default_conn_name,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta = 10,
        startup_timeout: float | timedelta | None = None,
        timeout: float | timedelta | None = None,
        fetch_logs: bool = True,
        cancel_on_kill: bool = True,
        durable: bool = True,
        skip_on_exit_code: int | Collection[int] = (),
        fail_on_exit_code: int | Collection[int] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = seconds(poll_interval)
        self.startup_timeout = seconds(startup_timeout)
        self.timeout = seconds(timeout)
        self.fetch_logs = fetch_logs
        self.cancel_on_kill = cancel_on_kill
        self.durable = durable
        self.skip_on_exit_code = _codes(skip_on_exit_code)
        self.fail_on_exit_code = _codes(fail_on_exit_code)
        self._target: Target | None = None  # what a kill stops
        self._killed = False

    def execute(self, context: Context) -> dict[str, str]:
        """Submit or adopt the job, then return or wait; deferrable: leave both to the triggerer."""
        self._check_arguments()
        with self._not_left_unwatched(context):
            hook = RayHook(self.conn_id)
            job, known = self._choose(context, hook)
            spec = self.job_spec(job.submission_id, job.metadata(context)) if known is None else None
            self._announce(context, hook, job, known)
            if self.deferrable and self.wait_for_completion:
                trigger = self._trigger(job, spec and self._prepare(hook, spec))
                self.defer(trigger=trigger, method_name="execute_complete")
            if spec is not None:
                self._submit(hook, job, spec)
            if not self.wait_for_completion:
                # From here on it is nobody's, and no kill stops it.
                self._target = None
                return self._result(job.submission_id)
            outcome = self._wait(hook, job)
            if not self._met_its_end(known is not None, outcome):
                return self._finish(context, hook, outcome)
        return self.execute(context)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, str]:
        """Turn the trigger's event into the result or error that the blocking mode has."""
        from airflow_provider_ray.client.errors import RayClusterUnavailable
        from airflow_provider_ray.client.outcome import Outcome

        hook = RayHook(self.conn_id)
        # Looked up now: on_kill must not talk to Airflow.
        hook.get_config()
        outcome = Outcome.from_json(event)
        is_away = isinstance(outcome.fault, RayClusterUnavailable)
        self._target = Target(hook, event["submission_id"], event["nonce"], may_arrive=is_away)
        with self._not_left_unwatched(context):
            if not self._met_its_end(event.get("adopted", False), outcome):
                return self._finish(context, hook, outcome)
        return self.execute(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the trigger; if that one failed instead of firing, see to the job that nobody watches now."""
        if next_method != TRIGGER_FAIL_REPR:
            return super().resume_execution(next_method, next_kwargs, context)
        if self.durable and (job := durable.recall(context)):
            self._target = durable.reach(job, RayHook(self.conn_id))
        with self._not_left_unwatched(context):
            return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Stop the job of a task that is killed while it holds a worker."""
        self._killed = True
        if self._target is None:
            return
        if self.cancel_on_kill:
            self._target.stop(self.log, KILL_SECONDS)
        else:
            self.log.info("Ray job %s goes on: cancel_on_kill is False", self._target.submission_id)

    def _choose(self, context: Context, hook: RayHook) -> tuple[TaskJob, JobDetails | None]:
        """The job of this attempt, a new one or an earlier attempt's, and what the cluster knows of it."""
        hook.get_config()
        earlier = durable.recall(context) if self.durable else None
        self._target = durable.reach(earlier, hook) if earlier else None
        if earlier and self._target:
            wanted, known = durable.still_wanted(earlier, self._target, context, self.conn_id)
            if wanted:
                return earlier, known
        is_successor = earlier is not None or (not self.durable and context["ti"].try_number > 1)
        return durable.new_job(context, self.conn_id, self.submission_id, successor=is_successor), None

    def _announce(self, context: Context, hook: RayHook, job: TaskJob, known: JobDetails | None) -> None:
        """Remember the job and show where it is going to be, before there can be one."""
        url = hook.get_config().job_url(job.submission_id)
        if self.durable:
            job.remember(context)
        context["ti"].xcom_push(key=durable.SUBMISSION_ID_KEY, value=job.submission_id)
        context["ti"].xcom_push(key=RayJobLink().xcom_key, value=url)
        doing = f"Going on with the {known.status}" if known else "Submitting"
        self.log.info("%s Ray job %s on %s: %s", doing, job.submission_id, self.conn_id, url)

    def _prepare(self, hook: RayHook, spec: JobSpec) -> JobSpec:
        from airflow_provider_ray.client.submission import prepare

        self.log_spec(spec)
        return hook.run(lambda client: prepare(client, spec))

    def _submit(self, hook: RayHook, job: TaskJob, spec: JobSpec) -> None:
        from airflow_provider_ray.client.errors import RayJobInterrupted
        from airflow_provider_ray.client.submission import post

        ready = self._prepare(hook, spec)
        if self._killed:
            raise RuntimeError(f"The task was killed before Ray job {job.submission_id} was submitted.")
        self._target = Target(hook, job.submission_id, job.nonce, may_arrive=True)
        hook.run(lambda client: post(client, ready))
        self._target.may_arrive = False
        self.log.info("Submitted Ray job %s", spec.submission_id)
        if self._killed and self.cancel_on_kill:
            self._target.stop(self.log, KILL_SECONDS)
            reason = "was submitted while the task's process was told to end, and stopped"
            raise RayJobInterrupted.from_message(f"Ray job {job.submission_id!r} {reason}")

    def _trigger(self, job: TaskJob, spec: JobSpec | None) -> RayJobTrigger:
        return RayJobTrigger(
            conn_id=self.conn_id,
            submission_id=job.submission_id,
            nonce=job.nonce,
            sealed_spec=seal(spec.to_json()) if spec else None,
            poll_interval=self.poll_interval,
            end_time=None if self.timeout is None else time() + self.timeout,
            startup_end_time=None if self.startup_timeout is None else time() + self.startup_timeout,
            fetch_logs=self.fetch_logs,
            cancel_on_kill=self.cancel_on_kill,
        )

    def _wait(self, hook: RayHook, job: TaskJob) -> Outcome:
        from airflow_provider_ray.client.outcome import watch

        return hook.run(
            partial(
                watch,
                submission_id=job.submission_id,
                poll_interval=self.poll_interval,
                timeout=self.timeout,
                startup_timeout=self.startup_timeout,
                logger=self.log if self.fetch_logs else None,
                owned=True,
            )
        )

    def _met_its_end(self, adopted: bool, outcome: Outcome) -> bool:
        """Whether an earlier attempt's job was stopped after all: whoever killed that attempt had it stopped."""
        if not adopted or not outcome.was_stopped or self._killed:
            return False
        self.log.info("The job of the earlier attempt has been stopped; this attempt submits one of its own")
        return True

    def _finish(self, context: Context, hook: RayHook, outcome: Outcome) -> dict[str, str]:
        from airflow_provider_ray.client.errors import RayJobFailed, RayJobInterrupted, RayJobLost, RayJobStopped

        if self.durable and (outcome.is_late or isinstance(outcome.fault, RayJobLost)):
            durable.remember_end(context, lost=not outcome.is_late)
        try:
            job = outcome.result(self.conn_id, hook.get_config())
        except RayJobFailed as error:
            exit_code = error.job.driver_exit_code if error.job else None
            if exit_code in self.skip_on_exit_code:
                raise AirflowSkipException(str(error)) from error
            if exit_code in self.fail_on_exit_code:
                raise AirflowFailException(str(error)) from error
            raise
        except RayJobStopped as error:
            if self._killed:
                raise RayJobInterrupted.from_message(f"{error}\nThe task's process was told to end.") from error
            raise
        return self._result(str(job.submission_id))

    def _result(self, submission_id: str) -> dict[str, str]:
        """The keyword arguments of a RayJobSensor."""
        return {"conn_id": self.conn_id, "submission_id": submission_id}

    @contextmanager
    def _not_left_unwatched(self, context: Context) -> Iterator[None]:
        """On any fault but the end of the job itself: leave the job to the next attempt, or stop it after the last."""
        from airflow_provider_ray.client.errors import RayJobError

        try:
            yield
        except (RayJobError, AirflowSkipException, AirflowFailException):
            raise
        except Exception as error:
            if self._target is None:
                raise
            if self.durable and is_retried_after(error, self.retry_policy, context):
                self.log.warning("Lost sight of Ray job %s; the next attempt looks for it", self._target.submission_id)
            else:
                self._target.stop(self.log)
            raise

    def _check_arguments(self) -> None:
        from airflow_provider_ray.client.errors import RayConfigError
        from airflow_provider_ray.client.jobspec import check_seconds

        check_seconds("poll_interval", self.poll_interval)
        for name in ("startup_timeout", "timeout", "stop_grace"):
            if (value := getattr(self, name)) is not None:
                check_seconds(name, value)
        for name in ("skip_on_exit_code", "fail_on_exit_code"):
            if wrong := [code for code in getattr(self, name) if not isinstance(code, int)]:
                raise RayConfigError(name, repr(wrong), "an exit code or a list of them, as integers")


def _codes(given: int | Collection[int]) -> frozenset[int]:
    return frozenset({given} if isinstance(given, int | str) else given)
