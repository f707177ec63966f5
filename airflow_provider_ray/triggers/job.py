"""Submit a job and wait for it in the triggerer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskInstanceState
from airflow.sdk.crypto import get_fernet
from airflow.sdk.exceptions import AirflowException
from airflow.sdk.log import amask_secret
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_ray import durable
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.log_bookmark import XComBookmark

if TYPE_CHECKING:
    from airflow_provider_ray.client.config import ClusterConfig
    from airflow_provider_ray.client.outcome import Outcome
    from airflow_provider_ray.client.ray_client import RayClient

# Airflow 3.3.2 can fail a task whose trigger fires before the scheduler has seen the worker leave.
EARLIEST_EVENT_SECONDS = 2.0
# Airflow gives on_kill 30 seconds ([triggerer] on_kill_timeout); half of ours is for asking Airflow, half for Ray.
KILL_SECONDS = 20.0


class RayJobTrigger(BaseTrigger):
    """Submit a job if asked to, wait until it has ended and fire one event, an ``Outcome`` as JSON.

    The trigger submits, and not the worker that defers, because Airflow tells nobody when a user fails a deferred
    task before a triggerer has taken it up: a job submitted by then would run unwatched. A trigger that starts anew
    finds the job that it submitted before.

    It watches and relays the driver's log; the verdict on the outcome is the operator's. A triggerer that stops or
    hands the trigger on does nothing to the job.

    :param conn_id: connection of the cluster.
    :param submission_id: the job; None to wait for the newest job with ``metadata``.
    :param nonce: text in the metadata of a job that is ours, which is stopped when the time is up, when it is given up
        as lost and when a user kills the task; None for a job of somebody else, which is left alone.
    :param sealed_spec: what to submit first, a ``JobSpec`` under :func:`seal`; None when the job is there already.
    :param metadata: what the job's metadata must contain.
    :param poll_interval: longest time between two looks, in seconds.
    :param end_time: when to give up, in seconds since the epoch; None for never.
    :param startup_end_time: when a job that is still PENDING is given up, in seconds since the epoch; None for never.
    :param fetch_logs: write the driver's log to the task log.
    :param cancel_on_kill: False leaves the job alone when a user kills the task.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        submission_id: str | None = None,
        nonce: str | None = None,
        sealed_spec: str | None = None,
        metadata: Mapping[str, str] | None = None,
        poll_interval: float = 10,
        end_time: float | None = None,
        startup_end_time: float | None = None,
        fetch_logs: bool = False,
        cancel_on_kill: bool = True,
    ) -> None:
        super().__init__()
        self.conn_id = conn_id
        self.submission_id = submission_id
        self.nonce = nonce
        self.sealed_spec = sealed_spec
        self.metadata = metadata
        self.poll_interval = poll_interval
        self.end_time = end_time
        self.startup_end_time = startup_end_time
        self.fetch_logs = fetch_logs
        self.cancel_on_kill = cancel_on_kill
        self._config: ClusterConfig | None = None
        self._submitting = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "airflow_provider_ray.triggers.job.RayJobTrigger",
            {
                "conn_id": self.conn_id,
                "submission_id": self.submission_id,
                "nonce": self.nonce,
                "sealed_spec": self.sealed_spec,
                "metadata": self.metadata,
                "poll_interval": self.poll_interval,
                "end_time": self.end_time,
                "startup_end_time": self.startup_end_time,
                "fetch_logs": self.fetch_logs,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from airflow_provider_ray.client.errors import RayError, RayTriggerError
        from airflow_provider_ray.client.outcome import Outcome

        not_before = monotonic() + EARLIEST_EVENT_SECONDS
        try:
            outcome = await self._watch()
        except RayError as fault:
            outcome = Outcome(fault=fault)
        except Exception as error:
            # A trigger that raises ends the task without its operator, which alone can see to the job.
            self.log.exception("Ray job %s can no longer be watched", self.submission_id)
            outcome = Outcome(fault=RayTriggerError(f"{type(error).__name__}: {error}"))
        await asyncio.sleep(not_before - monotonic())
        mine = {"submission_id": self.submission_id, "nonce": self.nonce, "adopted": self.sealed_spec is None}
        yield TriggerEvent({**mine, **outcome.to_json()})

    async def on_kill(self) -> None:
        """Stop the job when a user fails, clears or marks the deferred task.

        The triggerer cancels this coroutine again every second, and Airflow up to 3.3.2 also calls it when the trigger
        merely moves to another triggerer (apache/airflow#73454); so the work is shielded, and a task that is still
        deferred on this very job keeps it.
        """
        if self.nonce is None or not self.cancel_on_kill:
            return
        work = asyncio.ensure_future(self._stop_unless_wanted())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + KILL_SECONDS
        while not work.done() and loop.time() < deadline:
            try:
                await asyncio.wait({work}, timeout=deadline - loop.time())
            except asyncio.CancelledError:
                continue
        if not work.done():
            self.log.error("Ray job %s may still run: stopping it took too long", self.submission_id)
        elif error := work.exception():
            self.log.error("Ray job %s may still run, it could not be stopped: %s", self.submission_id, error)

    async def _watch(self) -> Outcome:
        from airflow_provider_ray.client.outcome import watch
        from airflow_provider_ray.client.shared import shared_client

        # Airflow's look-up would swallow the message of a cancellation, which alone tells Airflow to call on_kill.
        self._config = await asyncio.shield(asyncio.ensure_future(RayHook(self.conn_id).aget_config()))
        async with shared_client(self._config) as client:
            if self.sealed_spec is not None:
                await self._submit(client, self.sealed_spec)
            return await watch(
                client,
                submission_id=self.submission_id,
                metadata=self.metadata,
                poll_interval=self.poll_interval,
                timeout=_until(self.end_time),
                startup_timeout=_until(self.startup_end_time),
                logger=self.log if self.fetch_logs else None,
                bookmark=XComBookmark(self.task_instance) if self.task_instance else None,
                owned=self.nonce is not None,
            )

    async def _submit(self, client: RayClient, sealed_spec: str) -> None:
        from airflow_provider_ray.client.errors import RayTriggerError
        from airflow_provider_ray.client.jobspec import JobSpec
        from airflow_provider_ray.client.submission import find, post

        spec = JobSpec(**unseal(sealed_spec))
        await amask_secret(dict(spec.runtime_env.get("env_vars") or {}))
        is_late = any(moment is not None and moment <= time() for moment in (self.end_time, self.startup_end_time))
        if is_late and await find(client, spec.submission_id, str(self.nonce)) is None:
            reason = "was not submitted: no triggerer took it up within its timeout"
            raise RayTriggerError(f"Ray job {spec.submission_id!r} {reason}")
        self._submitting = True
        await post(client, spec)
        self._submitting = False
        self.log.info("Submitted Ray job %s", self.submission_id)

    async def _stop_unless_wanted(self) -> None:
        from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

        from airflow_provider_ray.client.ray_client import RayClient
        from airflow_provider_ray.client.waiting import stop_job

        # Airflow's API, which may be busy.
        attempts = AsyncRetrying(stop=stop_after_delay(KILL_SECONDS / 2), wait=wait_fixed(1), reraise=True)
        if await attempts(self._is_still_wanted):
            self.log.info("Ray job %s goes on: its task is still deferred", self.submission_id)
            return
        config = self._config or await RayHook(self.conn_id).aget_config()
        async with RayClient(config) as client:
            job = await stop_job(
                client,
                str(self.submission_id),
                nonce=self.nonce,
                within=KILL_SECONDS / 2,
                may_arrive=self._submitting,
            )
        self.log.info("Told Ray job %s to stop: %s", self.submission_id, job.status if job else "it is not there")

    async def _is_still_wanted(self) -> bool:
        """Whether the task is still deferred and this is still its job."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
        from airflow.sdk.execution_time.xcom import XCom
        from asgiref.sync import sync_to_async

        ti = self.task_instance
        if ti is None:
            return False
        states = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        current = await XCom.aget_one(
            key=durable.SUBMISSION_ID_KEY,
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            map_index=ti.map_index,
        )
        key = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
        state = (states.get(ti.run_id) or {}).get(key)
        return state == TaskInstanceState.DEFERRED and current == self.submission_id


def _until(moment: float | None) -> float | None:
    return None if moment is None else moment - time()


def seal(spec: Mapping[str, Any]) -> str:
    """Encrypt what is submitted, as ``env_vars`` may hold secrets.

    Airflow 3.3.2 stores the arguments of a trigger as they are, though the column is called ``encrypted_kwargs``. Where
    the Fernet key is set to nothing, as for connections, nothing is encrypted.

    :raises RayConfigError: when ``[core] fernet_key`` is not a valid key.
    """
    with _fernet_errors_named():
        return get_fernet().encrypt(json.dumps(spec).encode()).decode()


def unseal(sealed: str) -> dict[str, Any]:
    """Decrypt what :func:`seal` encrypted.

    :raises RayConfigError: when the Fernet key here is not the one that it was sealed with.
    """
    with _fernet_errors_named():
        spec: dict[str, Any] = json.loads(get_fernet().decrypt(sealed))
        return spec


@contextmanager
def _fernet_errors_named() -> Iterator[None]:
    from cryptography.fernet import InvalidToken

    from airflow_provider_ray.client.errors import RayConfigError

    try:
        yield
    except (AirflowException, InvalidToken, ValueError) as error:
        got = f"one that cannot be used here ({type(error).__name__}: {error})"
        raise RayConfigError("[core] fernet_key", got, "the same key on workers and triggerers") from error
