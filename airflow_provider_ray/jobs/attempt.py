"""One attempt of a task: which job it has, and what happens to its jobs when it fails or is killed.

As long as its cluster can be reached, no job of the task is left running unwatched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_ray.client import pacing
from airflow_provider_ray.clusters import selection
from airflow_provider_ray.jobs import memory
from airflow_provider_ray.jobs.decision import Adopt, CurrentAttempt
from airflow_provider_ray.jobs.earlier import EarlierJobs
from airflow_provider_ray.jobs.memory import Memory, TaskJob
from airflow_provider_ray.jobs.retry_policy import is_retried_after
from airflow_provider_ray.jobs.stopping import Hooks, StoppableJob, stop_all, tell_unwatched

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_provider_ray.client.api.job_spec import JobSpec
    from airflow_provider_ray.client.api.ray_client import RayClient
    from airflow_provider_ray.client.jobs.outcome import Outcome
    from airflow_provider_ray.hooks.ray import RayHook


@dataclass(frozen=True, slots=True)
class CurrentJob:
    """The job of an attempt.

    :param record: what the task remembers about it.
    :param hook: its cluster, with the connection looked up.
    :param status: its status if it is resumed; None if it is still to be submitted.
    """

    record: TaskJob
    hook: RayHook
    status: str | None = None

    @property
    def submission_id(self) -> str:
        """Id of the job."""
        return self.record.submission_id

    @property
    def is_adopted(self) -> bool:
        """Whether the job is that of an earlier attempt, which the cluster already has."""
        return self.status is not None


class Attempt:
    """The jobs that an attempt is responsible for: its own, and those that earlier attempts left behind.

    :param task: the task, for its log and its retry policy.
    :param context: of the attempt.
    :param durable: whether jobs are remembered between attempts.
    :param cancel_on_kill: whether a kill stops the attempt's own job.
    :param clusters: looks up which connections the task may use.
    """

    def __init__(
        self,
        task: BaseOperator,
        context: Context,
        *,
        durable: bool,
        cancel_on_kill: bool,
        clusters: Callable[[], Sequence[str]],
    ) -> None:
        self.job: StoppableJob | None = None  # once it may exist
        self.left_behind: Sequence[StoppableJob] = ()
        self.is_killed = False
        self._task, self._context, self._ti = task, context, context["ti"]
        self._cancel_on_kill, self._durable, self._clusters = cancel_on_kill, durable, clusters
        self._knows_jobs = False
        self._nonce: str | None = None  # of the job that the attempt continues with
        self._cluster: str | None = None  # connection of the cluster that the attempt depends on
        self._hooks = Hooks()
        self._memory = Memory()  # without the job of the attempt
        self._store = context.get("task_state_store") if durable else None
        if durable and self._store is None:
            task.log.warning("There is no task state store: a retry will not find the Ray job of this attempt")

    def find_job(self, strategy: str, submission_id: str | None) -> CurrentJob:
        """The job to continue with: one of an earlier attempt, or one that is still to be submitted.

        :param strategy: how to choose one of them for a new job.
        :param submission_id: the author's choice of an id for a new job.
        :raises RayRequestError: when an earlier job cannot be looked up, or no cluster is healthy.
        :raises RayJobStopping: when an earlier job that has to end first has not stopped yet.
        """
        clusters = self._clusters()
        self._cluster = None
        remembered = self._remembered()
        earlier = self._earlier(remembered)
        self._answer_for(earlier.newest, earlier.reached[1:])
        earlier.check_connections(clusters)
        current = self._current(clusters, remembered)
        step = earlier.look_and_stop(current)
        record = step.job or self._choose(earlier, current, strategy, submission_id)
        left_behind = earlier.left_behind(record, current)
        self._answer_for(earlier.find(record), map(earlier.find, left_behind))
        self._memory = replace(remembered, jobs=(*left_behind, *earlier.out_of_reach))
        self._cluster = record.conn_id
        if record.max_tries != self._ti.max_tries:
            # It has the id of a submission from before a clear, but is another job: a stop of the old must not hit it.
            record = replace(record, max_tries=self._ti.max_tries, nonce=memory.new_nonce())
        self._nonce = record.nonce
        hook, status = self._hooks[record.conn_id], step.status if isinstance(step, Adopt) else None
        return CurrentJob(record, hook, status)

    def remember(self, job: CurrentJob) -> None:
        """Remember the job, and those that it replaces, before it can exist."""
        replace(self._memory, jobs=(job.record, *self._memory.jobs)).write(self._store)

    def submit(self, job: CurrentJob, spec: JobSpec) -> None:
        """Submit the job.

        :param spec: the job, with everything uploaded that it needs.
        :raises RayJobInterrupted: when the task was killed meanwhile; the job has been asked to stop.
        :raises RayRequestError: when the cluster refuses the job, or is unavailable for longer than ``[ray]
            fault_budget``.
        """
        from airflow_provider_ray.client.errors import RayJobInterrupted
        from airflow_provider_ray.client.jobs.submission import post

        submission_id = job.submission_id

        async def post_unless_killed(client: RayClient) -> None:
            if self.is_killed:
                raise RuntimeError(f"The task was killed before Ray job {submission_id} was submitted.")
            await post(client, spec)

        # Preparing the job has shown that the cluster accepts the credentials.
        job.hook.accepted = True
        # A kill from here on stops the job, even if it arrives late.
        self.job = StoppableJob(job.hook, submission_id, job.record.nonce, may_arrive=not self.is_killed)
        job.hook.run(post_unless_killed)
        self.job.may_arrive = False
        self._task.log.info("Submitted Ray job %s", submission_id)
        if self.is_killed and self._cancel_on_kill:
            stop_all([(self.job, pacing.TASK_KILL_SECONDS)], self._task.log, looks_up=False)
            reason = "was submitted while its task was being killed, and has been stopped"
            raise RayJobInterrupted.from_message(f"Ray job {submission_id!r} {reason}")

    def resume(self, event: Mapping[str, Any], *, may_arrive: bool) -> RayHook:
        """Take responsibility for the jobs of a trigger that has fired, and return the cluster of the attempt's job.

        :param event: of :class:`~airflow_provider_ray.triggers.job.RayJobTrigger`.
        :param may_arrive: the submission of the job may still be on its way.
        """
        hook = self._hooks[event["conn_id"]]
        hook.accepted = True
        try:
            # Looked up now, because on_kill must not send requests to Airflow.
            hook.get_config()
        except Exception:
            reason = "its connection cannot be used, for the reason in the error below"
            tell_unwatched(self._task.log, hook.conn_id, event["submission_id"], reason)
            raise
        self._cluster, self._nonce = hook.conn_id, event["nonce"]
        own = StoppableJob(hook, event["submission_id"], event["nonce"], may_arrive)
        self._answer_for(own, [self._reach(**job) for job in event["left_behind"]])
        return hook

    def resume_remembered(self) -> None:
        """Take responsibility for all jobs of the task, after a trigger that failed without an event."""
        remembered = self._remembered()
        earlier = self._earlier(remembered)
        if remembered == Memory():
            self._search(earlier)
            if not earlier.exist:
                said = "No active Ray job of this task was found; one whose submission is on its way may still arrive"
                self._task.log.warning(said)
        self._answer_for(earlier.newest, earlier.reached[1:])

    def note_timeout(self, outcome: Outcome) -> None:
        """Remember that a job got a stop request because its time was up: no attempt resumes it."""
        if outcome.is_late:
            self._change_memory(lambda job: replace(job, stopping=True))

    def release_job(self) -> None:
        """Leave the job to itself: from now on, no kill stops it."""
        self.job = None
        self.stop_left_behind()

    def stop_left_behind(self) -> None:
        """Ask the jobs of earlier attempts to stop, for the last time."""
        jobs = [*self.left_behind, *self._late_arrivals()]
        stop_all([(job, pacing.LAST_STOP_SECONDS) for job in jobs], self._task.log)
        self.left_behind = ()

    def kill(self) -> None:
        """Stop the jobs of a task that is killed while it holds a worker."""
        self.is_killed = True
        if not self._knows_jobs and self._ti.try_number > 1:
            said = "The task was killed before it knew the Ray jobs of its earlier attempts; one may still be running"
            self._task.log.warning(said)
        jobs = [*self.left_behind]
        if self.job is not None and self._cancel_on_kill:
            jobs.append(self.job)
        elif self.job is not None:
            self._task.log.info("Ray job %s keeps running: cancel_on_kill is False", self.job.submission_id)
        stop_all([(job, pacing.TASK_KILL_SECONDS) for job in jobs], self._task.log, looks_up=False)

    @contextmanager
    def guarding_jobs(self) -> Iterator[None]:
        """On any fault except the end of the job itself, leave it to the next attempt, or stop it after the last.

        A job on a cluster that rejects the credentials is not stopped: the log says how to find it again.
        """
        from airflow_provider_ray.client.errors import RayJobError

        try:
            yield
        except Exception as error:
            if isinstance(error, RayJobError | AirflowSkipException | AirflowFailException):
                self.job = None
            self._leave_or_stop(error)
            self._remember_fault(error)
            raise

    def _search(self, earlier: EarlierJobs) -> None:
        """Search the clusters; a fault must not hide how the attempt ends."""
        try:
            earlier.search(self._current(self._clusters(), Memory()))
        except Exception as error:
            self._task.log.error("Cannot look for active Ray jobs of this task: %s", error)

    def _reach(self, conn_id: str, submission_id: str, nonce: str) -> StoppableJob | None:
        return StoppableJob.reach(self._hooks[conn_id], submission_id, nonce)

    def _late_arrivals(self) -> list[StoppableJob]:
        """Jobs of earlier attempts that nobody remembers and that arrived after the attempt had searched."""
        if self._nonce is None or self._ti.try_number <= 1:
            return []
        earlier = self._earlier(Memory())
        self._search(earlier)
        known = {self._nonce, *(job.nonce for job in self.left_behind)}
        return [job for job in earlier.reached if job.nonce not in known]

    def _earlier(self, remembered: Memory) -> EarlierJobs:
        ti = self._ti
        return EarlierJobs(remembered.jobs, memory.stamps(ti.dag_id, ti.run_id, ti.task_id, ti.map_index), self._hooks)

    def _current(self, clusters: Sequence[str], remembered: Memory) -> CurrentAttempt:
        return CurrentAttempt(
            clusters,
            self._ti.max_tries,
            remembered.failed_on,
            self._ti.try_number,
            resumes=self._durable and remembered == Memory(),
        )

    def _remembered(self) -> Memory:
        return memory.read(self._store, self._ti.max_tries)

    def _choose(
        self, earlier: EarlierJobs, current: CurrentAttempt, strategy: str, submission_id: str | None
    ) -> TaskJob:
        """What to submit, on a cluster that is chosen now."""
        self._answer_for(None, map(earlier.find, earlier.left_behind(None, current)))
        # A cluster that could not be searched may have a job of an earlier attempt that nobody remembers.
        unsearched = () if current.is_first else earlier.unsearched
        avoided = [*(each for each in unsearched if each not in current.failed_on), *current.failed_on]
        chosen = selection.choose(current.clusters, strategy, self._context, avoided).conn_id
        # A job that may be there, or never arrived, keeps its id.
        again = earlier.resubmission(chosen, current)
        has_predecessor = earlier.exist or (self._store is None and self._ti.try_number > 1)
        return again or memory.new_job(
            self._ti,
            chosen,
            submission_id,
            has_predecessor=has_predecessor,
            session=earlier.session_of(chosen),
        )

    def _answer_for(self, own: StoppableJob | None, left_behind: Iterable[StoppableJob | None]) -> None:
        """From now on a kill stops these jobs; one that came before stops them now.

        :param own: that of the attempt, if it may exist.
        :param left_behind: those of earlier attempts that may be active.
        """
        self._knows_jobs = True
        self.job = own
        self.left_behind = [job for job in left_behind if job is not None]
        if self.is_killed:
            self.kill()

    def _leave_or_stop(self, error: Exception) -> None:
        log = self._task.log
        is_final = self._store is None or isinstance(error, AirflowSkipException | AirflowFailException)
        if is_final or not is_retried_after(error, self._task.retry_policy, self._context):
            self._stop_or_tell(error)
            self.stop_left_behind()
        elif self.job is not None:
            log.warning("Lost track of Ray job %s; the next attempt will look for it", self.job.submission_id)

    def _stop_or_tell(self, error: Exception) -> None:
        """Stop the job that no attempt will look for, unless all that is wrong is the credentials."""
        from airflow_provider_ray.client.errors import RayAuthError

        if self.job is not None and isinstance(error, RayAuthError):
            reason = "its cluster rejects the credentials of the connection, and no attempt is left"
            tell_unwatched(self._task.log, self.job.hook.conn_id, self.job.submission_id, reason)
        elif self.job is not None:
            stop_all([(self.job, None)], self._task.log)

    def _remember_fault(self, error: Exception) -> None:
        """Let the next attempt choose another cluster, if there is one."""
        from airflow_provider_ray.client.errors import RayClusterUnavailable, RayJobLost

        if not self._cluster or not isinstance(error, RayClusterUnavailable | RayJobLost):
            return
        is_lost = isinstance(error, RayJobLost)
        self._change_memory(lambda job: replace(job, lost=job.lost or is_lost), failed_on=self._cluster)

    def _change_memory(self, change: Callable[[TaskJob], TaskJob], failed_on: str | None = None) -> None:
        remembered = self._remembered().with_newest(change)
        (remembered.with_failure_of(failed_on) if failed_on else remembered).write(self._store)
