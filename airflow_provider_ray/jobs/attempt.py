"""What becomes of a task's jobs when it is killed, when an attempt fails, and at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_ray.jobs import memory
from airflow_provider_ray.jobs.definition import JobFields
from airflow_provider_ray.jobs.memory import Memory
from airflow_provider_ray.jobs.retry_policy import is_retried_after
from airflow_provider_ray.jobs.stopping import Target, stop_all

if TYPE_CHECKING:
    from airflow.sdk import Context

# Airflow kills the process of a task that was marked or cleared five seconds after on_kill began.
KILL_SECONDS = 4.0
LAST_STOP_SECONDS = 5.0


class JobCustody(JobFields):
    """An operator that answers for its jobs: none is left running unwatched as long as it can be told to stop.

    :param cancel_on_kill: stop the job when the task is killed, marked or its worker is terminated; False leaves it
        running, unless the task is cleared when it is not on a worker: the job is then stopped before there is another.
    :param durable: remember the job, so that a retry goes on with it, and which cluster failed; False submits anew in
        each attempt.
    """

    def __init__(self, *, cancel_on_kill: bool = True, durable: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cancel_on_kill = cancel_on_kill
        self.durable = durable
        self._cluster: str | None = None  # connection of the cluster that the attempt depends on
        self._target: Target | None = None  # the job of the attempt, once it may exist
        self._others: Sequence[Target] = ()  # jobs of earlier attempts that may be active
        self._memory = Memory()  # without the job of the attempt
        self._killed = False

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the trigger; if that one failed instead of firing, see to the job that nobody watches now."""
        if next_method != TRIGGER_FAIL_REPR:
            return super().resume_execution(next_method, next_kwargs, context)
        if self.durable:
            self._answer_for([target for _, target in memory.reach_all(memory.recall(context).jobs)])
        with self._not_left_unwatched(context):
            return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Stop the jobs of a task that is killed while it holds a worker."""
        self._killed = True
        targets = [*self._others]
        if self._target is not None and self.cancel_on_kill:
            targets.append(self._target)
        elif self._target is not None:
            self.log.info("Ray job %s goes on: cancel_on_kill is False", self._target.submission_id)
        stop_all(targets, self.log, KILL_SECONDS)

    def _answer_for(self, targets: Sequence[Target | None]) -> None:
        """Have these jobs stopped by a kill from now on: that of the attempt, if there may be one, and the others."""
        self._target = next(iter(targets), None)
        self._others = [target for target in targets[1:] if target is not None]

    def _other_jobs(self) -> list[dict[str, str]]:
        """The jobs of earlier attempts in JSON, for the trigger that waits for the current one."""
        return [
            {"conn_id": other.hook.conn_id, "submission_id": other.submission_id, "nonce": other.nonce}
            for other in self._others
        ]

    def _stop_others(self) -> None:
        """Tell the jobs of earlier attempts to stop, for the last time."""
        stop_all(self._others, self.log, LAST_STOP_SECONDS)
        self._others = ()

    @contextmanager
    def _not_left_unwatched(self, context: Context) -> Iterator[None]:
        """On any fault but the end of the job itself: leave the job to the next attempt, or stop it after the last."""
        from airflow_provider_ray.client.errors import RayJobError

        try:
            yield
        except Exception as error:
            has_ended = isinstance(error, RayJobError | AirflowSkipException | AirflowFailException)
            target = None if has_ended else self._target
            if target is not None or self._others:
                self._leave_or_stop(target, error, context)
            if self.durable:
                self._remember_fault(context, error)
            raise

    def _remember_fault(self, context: Context, error: Exception) -> None:
        """Let the next attempt go to another cluster, if there is one."""
        from airflow_provider_ray.client.errors import RayClusterUnavailable, RayJobLost

        if self._cluster and isinstance(error, RayClusterUnavailable | RayJobLost):
            memory.remember_fault(context, self._cluster, lost=isinstance(error, RayJobLost))

    def _leave_or_stop(self, target: Target | None, error: Exception, context: Context) -> None:
        is_final = not self.durable or isinstance(error, AirflowSkipException | AirflowFailException)
        if is_final or not is_retried_after(error, self.retry_policy, context):
            if target is not None:
                target.stop(self.log)
            self._stop_others()
        elif target is not None:
            self.log.warning("Lost sight of Ray job %s; the next attempt looks for it", target.submission_id)
