"""Submit a job to a Ray cluster."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

from airflow_provider_ray.clusters import selection
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.jobs import exit_codes, memory
from airflow_provider_ray.jobs.attempt import KILL_SECONDS, JobCustody
from airflow_provider_ray.jobs.decision import settle
from airflow_provider_ray.jobs.definition import JobFields, seconds
from airflow_provider_ray.jobs.encryption import seal
from airflow_provider_ray.jobs.stopping import Target
from airflow_provider_ray.links import RayJobLink
from airflow_provider_ray.task_log.position import XComBookmark
from airflow_provider_ray.triggers.job import RayJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_ray.client.api.job_spec import JobSpec
    from airflow_provider_ray.client.api.models import JobDetails
    from airflow_provider_ray.client.jobs.outcome import Outcome
    from airflow_provider_ray.jobs.memory import TaskJob


class RaySubmitJobOperator(JobCustody):
    """Submit a job to a Ray cluster and, unless told otherwise, wait for its end.

    The job's id is remembered before the job is submitted: a retry goes on with a job that is still active or has
    succeeded, and submits anew only when the earlier one failed, was stopped, or the task was cleared. Given several
    clusters, a retry goes to another one when the first is unavailable or has lost the job; whatever may run there is
    stopped as soon as that can be told. A job whose task is killed or runs into ``timeout`` is stopped. The XCom is
    ``{"conn_id", "submission_id"}`` of the job that counts, in every mode.

    What the job is, from ``entrypoint`` to ``stop_grace``, is described by the parameters of
    :class:`~airflow_provider_ray.jobs.definition.JobFields`; ``cancel_on_kill`` and ``durable`` are those of
    :class:`~airflow_provider_ray.jobs.attempt.JobCustody`.

    :param conn_id: connection of type ``ray``, or a list of them to choose from. (templated)
    :param strategy: how to choose: ``first_healthy`` in the given order, ``least_loaded``, or ``round_robin`` by map
        index. A cluster that has failed the task comes last.
    :param wait_for_completion: False returns once the job is submitted; nobody watches it then.
    :param deferrable: let the triggerer submit and wait; default ``[operators] default_deferrable``. To a cluster whose
        connection has ``max_jobs``, the triggerer submits in any case.
    :param poll_interval: longest time between two looks at the job, in seconds.
    :param startup_timeout: seconds until a job that is still PENDING is stopped and the task fails; None for no limit,
        but Ray itself gives up after its ``RAY_JOB_START_TIMEOUT_SECONDS`` (900) while the agent of its head lives.
    :param timeout: seconds until a job that has not ended is stopped and the task fails; None for no limit. Unlike
        ``execution_timeout`` it also holds while deferred. Waiting for room on a cluster does not count.
    :param room_timeout: seconds to wait for room on a cluster whose connection has ``max_jobs``; then the task fails,
        and nothing is submitted. None for no limit.
    :param fetch_logs: write the driver's log to the task log while the job runs.
    :param skip_on_exit_code: exit codes of the driver that skip the task instead of failing it.
    :param fail_on_exit_code: exit codes of the driver that fail the task without a retry.
    :raises RayConfigError: before anything is submitted, when a field cannot work.
    :raises RayRequestError: when the cluster refuses us, or is not available for two minutes; when none of several
        clusters is healthy.
    :raises RayTriggerError: when the triggerer could not do its part.
    :raises RayJobFailed: when the job failed.
    :raises AirflowSkipException: when the driver ended with one of ``skip_on_exit_code``.
    :raises AirflowFailException: when the driver ended with one of ``fail_on_exit_code``.
    :raises RayJobStopped: when somebody stopped the job.
    :raises RayJobInterrupted: when the job was stopped because the process of the task was told to end.
    :raises RayJobStopping: when an earlier job, of a cleared task or past its ``timeout``, was told to stop and has
        not ended.
    :raises RayJobLost: when the cluster has forgotten the job, or the node of its driver is gone.
    :raises RayJobTimeout: when the job had not ended within ``timeout``, not started within ``startup_timeout``, or not
        found room within ``room_timeout``.
    """

    template_fields: Sequence[str] = ("conn_id", *JobFields.template_fields)
    operator_extra_links = (RayJobLink(),)
    ui_color = "#dff1fb"

    def __init__(
        self,
        *,
        conn_id: str | Sequence[str] = RayHook.default_conn_name,
        strategy: str = "first_healthy",
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta = 10,
        startup_timeout: float | timedelta | None = None,
        timeout: float | timedelta | None = None,
        room_timeout: float | timedelta | None = None,
        fetch_logs: bool = True,
        skip_on_exit_code: int | Collection[int] = (),
        fail_on_exit_code: int | Collection[int] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.strategy = strategy
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = seconds(poll_interval)
        self.startup_timeout = seconds(startup_timeout)
        self.timeout = seconds(timeout)
        self.room_timeout = seconds(room_timeout)
        self.fetch_logs = fetch_logs
        self.skip_on_exit_code = exit_codes.collect(skip_on_exit_code)
        self.fail_on_exit_code = exit_codes.collect(fail_on_exit_code)

    def execute(self, context: Context) -> dict[str, str]:
        """Submit or adopt the job, then return or wait; or leave that to the triggerer."""
        self._check_arguments()
        with self._not_left_unwatched(context):
            hook, job, known = self._choose(context)
            spec = self.job_spec(job.submission_id, job.metadata(context)) if known is None else None
            self._announce(context, hook, job, known)
            ready = self._prepare(hook, spec) if spec is not None else None
            self._remember(context, job)
            is_limited = ready is not None and hook.get_config().max_jobs is not None
            if is_limited or (self.deferrable and self.wait_for_completion):
                trigger = self._trigger(job, ready)
                if trigger.fetch_logs:
                    XComBookmark.begin(context)
                self.defer(trigger=trigger, method_name="execute_complete")
            if ready is not None:
                self._submit(hook, job, ready)
            result = self._go_on(context, hook, job.submission_id, adopted=known is not None)
        return result or self.execute(context)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, str]:
        """Turn the trigger's event into the result or error that the blocking mode has, or go on in that mode."""
        from airflow_provider_ray.client.errors import RayClusterUnavailable
        from airflow_provider_ray.client.jobs.outcome import Outcome

        hook, outcome = RayHook(event["conn_id"]), Outcome.from_json(event)
        # Looked up now: on_kill must not talk to Airflow.
        hook.get_config()
        is_away = isinstance(outcome.fault, RayClusterUnavailable)
        self._cluster = hook.conn_id
        self._target = Target(hook, event["submission_id"], event["nonce"], may_arrive=is_away)
        self._others = [target for job in event["others"] if (target := memory.reach(**job))]
        with self._not_left_unwatched(context):
            if outcome == Outcome():
                # The trigger was there to submit only.
                result = self._go_on(context, hook, event["submission_id"], adopted=False)
            else:
                result = self._conclude(context, hook, outcome, event["adopted"])
        return result or self.execute(context)

    def _choose(self, context: Context) -> tuple[RayHook, TaskJob, JobDetails | None]:
        """The job of this attempt, a new one or an earlier attempt's, where it is, and what its cluster knows of it."""
        self._cluster = None
        clusters = selection.connections(self.conn_id)
        remembered = memory.recall(context) if self.durable else memory.Memory()
        earlier = memory.reach_all(remembered.jobs)
        self._answer_for([target for _, target in earlier])
        out_of_reach = [job for job in remembered.jobs if job not in [each for each, _ in earlier]]
        for job in out_of_reach:
            if job.conn_id in clusters:
                # A secrets backend that fails looks as if there were no such connection; no job is forgotten for that.
                RayHook(job.conn_id).get_config()
        left = settle(earlier, context, clusters, remembered.failed_on)
        if left.adopted is None:
            self._answer_for(left.targets)
            hook = selection.choose(clusters, self.strategy, context, remembered.failed_on)
            left = left.on(hook.conn_id)
        self._answer_for(left.targets)
        self._memory = replace(remembered, jobs=(*(each.job for each in left.others), *out_of_reach))
        if left.adopted is not None:
            hook, job, known = left.adopted.target.hook, left.adopted.job, left.adopted.known
        else:
            is_successor = bool(remembered.jobs) or (not self.durable and context["ti"].try_number > 1)
            job, known = memory.new_job(context, hook.conn_id, self.submission_id, successor=is_successor), None
        self._cluster = hook.conn_id
        return hook, job, known

    def _announce(self, context: Context, hook: RayHook, job: TaskJob, known: JobDetails | None) -> None:
        """Show where the job is going to be, before there can be one."""
        url = hook.get_config().job_url(job.submission_id)
        where = {memory.CONN_ID_KEY: hook.conn_id, memory.SUBMISSION_ID_KEY: job.submission_id}
        for key, value in {**where, RayJobLink().xcom_key: url}.items():
            context["ti"].xcom_push(key=key, value=value)
        doing = f"Going on with the {known.status}" if known else "Submitting"
        self.log.info("%s Ray job %s on %s: %s", doing, job.submission_id, hook.conn_id, url)

    def _prepare(self, hook: RayHook, spec: JobSpec) -> JobSpec:
        from airflow_provider_ray.client.jobs.submission import prepare

        self.log_spec(spec)
        return hook.run(lambda client: prepare(client, spec))

    def _remember(self, context: Context, job: TaskJob) -> None:
        """Remember the job before there can be one, and those that it takes the place of."""
        if self.durable:
            replace(self._memory, jobs=(job, *self._memory.jobs)).store(context)

    def _submit(self, hook: RayHook, job: TaskJob, ready: JobSpec) -> None:
        from airflow_provider_ray.client.errors import RayJobInterrupted
        from airflow_provider_ray.client.jobs.submission import post

        if self._killed:
            raise RuntimeError(f"The task was killed before Ray job {job.submission_id} was submitted.")
        self._target = Target(hook, job.submission_id, job.nonce, may_arrive=True)
        hook.run(lambda client: post(client, ready))
        self._target.may_arrive = False
        self.log.info("Submitted Ray job %s", job.submission_id)
        if self._killed and self.cancel_on_kill:
            self._target.stop(self.log, KILL_SECONDS)
            reason = "was submitted while the task's process was told to end, and stopped"
            raise RayJobInterrupted.from_message(f"Ray job {job.submission_id!r} {reason}")

    def _go_on(self, context: Context, hook: RayHook, submission_id: str, *, adopted: bool) -> dict[str, str] | None:
        """The result of a job that is submitted; None when there has to be another job."""
        if not self.wait_for_completion:
            # From here on it is nobody's, and no kill stops it.
            self._target = None
            self._stop_others()
            return _result(hook, submission_id)
        return self._conclude(context, hook, self._wait(hook, submission_id), adopted)

    def _trigger(self, job: TaskJob, ready: JobSpec | None) -> RayJobTrigger:
        now = time()
        return RayJobTrigger(
            conn_id=job.conn_id,
            submission_id=job.submission_id,
            nonce=job.nonce,
            sealed_spec=seal(ready.to_json()) if ready else None,
            # Between a trigger that has submitted and a worker that goes on, nobody would watch the job.
            submit_only=not self.wait_for_completion,
            queued_at=now,
            room_end_time=None if self.room_timeout is None else now + self.room_timeout,
            others=self._other_jobs(),
            poll_interval=self.poll_interval,
            end_time=None if self.timeout is None else now + self.timeout,
            startup_end_time=None if self.startup_timeout is None else now + self.startup_timeout,
            fetch_logs=self.fetch_logs and self.wait_for_completion,
            cancel_on_kill=self.cancel_on_kill,
        )

    def _wait(self, hook: RayHook, submission_id: str) -> Outcome:
        from airflow_provider_ray.client.jobs.outcome import watch

        return hook.run(
            partial(
                watch,
                submission_id=submission_id,
                poll_interval=self.poll_interval,
                timeout=self.timeout,
                startup_timeout=self.startup_timeout,
                logger=self.log if self.fetch_logs else None,
                owned=True,
            )
        )

    def _conclude(self, context: Context, hook: RayHook, outcome: Outcome, adopted: bool) -> dict[str, str] | None:
        """The verdict on a job that is not watched any more; None when there has to be another job."""
        if adopted and outcome.was_stopped and not self._killed:
            # Whoever killed the earlier attempt had its job stopped.
            self.log.info("The job of the earlier attempt has been stopped; this attempt submits one of its own")
            return None
        return self._finish(context, hook, outcome)

    def _finish(self, context: Context, hook: RayHook, outcome: Outcome) -> dict[str, str]:
        from airflow_provider_ray.client.errors import RayJobFailed, RayJobInterrupted, RayJobStopped

        if self.durable and outcome.is_late:
            memory.remember_late(context)
        try:
            job = outcome.result(hook.conn_id, hook.get_config())
        except RayJobFailed as error:
            exit_codes.obey(error, skip=self.skip_on_exit_code, fail=self.fail_on_exit_code)
            raise
        except RayJobStopped as error:
            if self._killed:
                raise RayJobInterrupted.from_message(f"{error}\nThe task's process was told to end.") from error
            raise
        self._stop_others()
        return _result(hook, str(job.submission_id))

    def _check_arguments(self) -> None:
        from airflow_provider_ray.client.api.job_spec import check_seconds

        selection.connections(self.conn_id)
        selection.check_strategy(self.strategy)
        check_seconds("poll_interval", self.poll_interval)
        for name in ("startup_timeout", "timeout", "room_timeout", "stop_grace"):
            if (value := getattr(self, name)) is not None:
                check_seconds(name, value)
        for name in ("skip_on_exit_code", "fail_on_exit_code"):
            exit_codes.check(name, getattr(self, name))


def _result(hook: RayHook, submission_id: str) -> dict[str, str]:
    """The keyword arguments of a RayJobSensor."""
    return {"conn_id": hook.conn_id, "submission_id": submission_id}
