"""From an Airflow connection to a client for its cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from airflow.sdk import BaseHook

from airflow_provider_ray.client.durations import optional_seconds, seconds
from airflow_provider_ray.hooks import options

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_ray.client.api.capacity import Capacity
    from airflow_provider_ray.client.api.models import Application, JobDetails
    from airflow_provider_ray.client.api.ray_client import RayClient
    from airflow_provider_ray.client.config import ClusterConfig

T = TypeVar("T")


class RayHook(BaseHook):
    """A Ray cluster, by its connection id.

    Dag authors call the blocking methods. Operators and triggers read the configuration and use the client, where
    every request is async and exists once. Nothing is sent until a method is called.

    :param conn_id: a connection of type ``ray``.
    :param accepted: the cluster has accepted the connection's credentials before, for example because it has a job of
        ours. If it rejects them now, they are being rotated, and requests are repeated for ``[ray] auth_budget``.
    """

    conn_name_attr = "conn_id"
    default_conn_name = "ray_default"
    conn_type = "ray"
    hook_name = "Ray"

    def __init__(self, conn_id: str = default_conn_name, *, accepted: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.accepted = accepted
        self._cached_config: ClusterConfig | None = None
        self._client: RayClient | None = None  # the newest

    def get_config(self) -> ClusterConfig:
        """What the connection says about the cluster, looked up once per hook, and again when credentials are rejected.

        :raises AirflowNotFoundException: when the connection does not exist.
        :raises RayConfigError: when it is of another type, or a field cannot work.
        """
        if self._client is not None:
            # What the cluster accepts may have changed while it was in use.
            self._cached_config = self._client.config
        elif self._cached_config is None:
            self._cached_config = self._look_up()
        return self._cached_config

    async def aget_config(self) -> ClusterConfig:
        """Same as :meth:`get_config`, for an event loop; looked up on every call."""
        from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson

        from airflow_provider_ray.compat.triggerer import amask_secret

        with self._readable():
            connection = await get_async_connection(self.conn_id, hook=type(self))
            extra = await get_async_extra_dejson(connection)
        config = self._config(connection, extra)
        for secret in _secrets(config):
            await amask_secret(secret)
        return config

    def get_labels(self) -> Mapping[str, str]:
        """Labels of the cluster, even if other fields of the connection are invalid.

        :raises AirflowNotFoundException: when the connection does not exist.
        :raises RayConfigError: when it is of another type, or its labels are invalid.
        """
        from airflow_provider_ray.client.labels import read_labels

        with self._readable():
            connection = self.get_connection(self.conn_id)
            extra = connection.extra_dejson
        with self._named(connection):
            return read_labels(_json_object(connection, extra))

    def get_conn(self, *, looks_up: bool = True) -> RayClient:
        """A client for ``async with``.

        :param looks_up: whether it may look up the connection again, which asks Airflow.
        """
        from airflow_provider_ray.client.api.ray_client import RayClient

        look_up = self._looked_up_again if looks_up else None
        self._client = RayClient(self.get_config(), look_up, accepted=self.accepted)
        return self._client

    def run(self, action: Callable[[RayClient], Coroutine[Any, Any, T]]) -> T:
        """Run an async action with an open client, from blocking code, and return its result."""
        from airflow_provider_ray.client.sync import run_sync

        client = self.get_conn()

        async def opened() -> T:
            async with client:
                try:
                    return await action(client)
                finally:
                    self.accepted = client.accepted

        return run_sync(opened)

    def test_connection(self) -> tuple[bool, str]:
        """Whether the cluster can be reached, with one line that describes it or gives the reason."""
        from airflow_provider_ray.client.errors import RayError

        try:
            return True, self.run(_describe)
        except RayError as error:
            return False, str(error)

    def get_capacity(self) -> Capacity:
        """The cluster's resources, how much of them is free, and how many jobs it runs; None for what is unknown.

        :raises RayRequestError: when the cluster is unavailable, or rejects the request.
        """
        return self.run(lambda client: client.capacity())

    def submit_job(
        self,
        entrypoint: str | Sequence[Any],
        *,
        parameters: Any = None,
        submission_id: str | None = None,
        **fields: Any,
    ) -> str:
        """Submit a job and return its submission_id without waiting for the job.

        :param entrypoint: a shell command, or a list of arguments, each of which is quoted.
        :param parameters: a JSON-serializable value, appended to the entrypoint as one quoted argument.
        :param submission_id: id of the job; by default a new one is generated.
        :param fields: other arguments of :meth:`airflow_provider_ray.client.api.job_spec.JobSpec.given`.
        """
        from airflow.providers.common.compat.sdk import mask_secret

        from airflow_provider_ray.client.api.job_spec import JobSpec
        from airflow_provider_ray.client.credentials import find_secrets
        from airflow_provider_ray.client.jobs.submission import INSTALLATION_KEY, submit

        for secret in find_secrets({"entrypoint": entrypoint, "parameters": parameters, **fields}):
            mask_secret(secret)
        chosen = submission_id if submission_id is not None else f"airflow-{uuid4().hex}"
        metadata = {INSTALLATION_KEY: options.installation(), **(fields.pop("metadata", None) or {})}
        given = {"entrypoint": entrypoint, "parameters": parameters, "submission_id": chosen, "metadata": metadata}
        spec = JobSpec.given(**given, **fields)
        self.run(lambda client: submit(client, spec))
        return chosen

    def get_job(self, submission_id: str) -> JobDetails:
        """Details of a job.

        :raises RayNotFound: when the cluster has no such job.
        """
        return self.run(lambda client: client.jobs.get(submission_id))

    def wait_for_job(
        self,
        submission_id: str,
        *,
        timeout: float | timedelta | None = None,
        poll_interval: float | timedelta = 10,
        fetch_logs: bool = True,
    ) -> JobDetails:
        """Wait until a job has succeeded, and return it. Nothing that happens here stops the job.

        :param timeout: how long to wait, in seconds or as a ``timedelta``; None for no limit.
        :param poll_interval: longest time between two checks of the job, in seconds or as a ``timedelta``.
        :param fetch_logs: write the driver log to this hook's log while the job runs.
        :raises RayNotFound: when the cluster has no such job.
        :raises RayJobFailed: when the job failed.
        :raises RayJobStopped: when the job was stopped.
        :raises RayJobLost: when the cluster has forgotten the job, or the node of its driver is gone.
        :raises RayJobTimeout: when the job had not ended within ``timeout``.
        :raises RayRequestError: when the cluster rejects the request, or is unavailable for longer than ``[ray]
            fault_budget``.
        """
        from airflow_provider_ray.client.jobs.outcome import watch

        waiting = partial(
            watch,
            submission_id=submission_id,
            poll_interval=seconds("poll_interval", poll_interval),
            timeout=optional_seconds("timeout", timeout),
            logger=self.log if fetch_logs else None,
        )
        return self.run(waiting).result(self.conn_id, self.get_config())

    def stop_job(self, submission_id: str) -> JobDetails | None:
        """Stop a job, wait for it to end, and return it; None when the cluster has no such job.

        If the job has not ended within ``[ray] stop_timeout`` seconds, it is returned as last seen.
        """
        from airflow_provider_ray.client.jobs.waiting import stop_job

        return self.run(lambda client: stop_job(client, submission_id))

    def get_logs(self, submission_id: str) -> str:
        """The driver log so far. Bytes that are not UTF-8 are replaced.

        :raises RayAnswerTooLarge: when it is longer than ``[ray] log_followed_bytes``.
        """
        from airflow_provider_ray.client.jobs.driver_log import read_log

        return self.run(lambda client: read_log(client, submission_id))

    def delete_old_jobs(self, older_than: timedelta) -> int:
        """Delete the records of jobs that this Airflow submitted and that ended longer ago; return how many.

        Ray keeps all records, and a list of jobs takes longer with each. The logs stay on the cluster.

        :param older_than: time since the end of a job, at least a day.
        :raises RayRequestError: when the cluster refuses, or is unavailable for longer than ``[ray] fault_budget``.
        :raises RayConfigError: when it is less than a day, in which a task may still ask for its job.
        """
        from airflow_provider_ray.client.errors import RayConfigError
        from airflow_provider_ray.client.jobs.records import clean

        if not isinstance(older_than, timedelta) or older_than < timedelta(days=1):
            raise RayConfigError("older_than", repr(older_than), "a timedelta of at least a day")
        return self.run(lambda client: clean(client, older_than.total_seconds(), options.installation()))

    def list_applications(self) -> list[Application]:
        """Serve applications on the cluster."""

        async def applications(client: RayClient) -> list[Application]:
            return list((await client.serve.details()).applications.values())

        return self.run(applications)

    def call_application(
        self,
        application: str | None = None,
        path: str = "/",
        *,
        timeout: float | timedelta = 0,
        request_timeout: float | timedelta = 60,
        **request: Any,
    ) -> Any:
        """Call a route of a Serve application and return the decoded JSON answer.

        The log shows what is being waited for, and a line about the answer.

        :param application: name of the application; None when ``path`` is the complete route.
        :param path: path below the application's route prefix, appended to it as it is.
        :param timeout: how long to wait for the application, in seconds or as a ``timedelta``; by default it must
            already be running.
        :param request_timeout: limit for one call, in seconds or as a ``timedelta``.
        :param request: ``method``, ``data``, ``headers`` and ``max_answer_bytes`` of
            :meth:`airflow_provider_ray.client.api.serve.Serve.call`.
        :raises RayConfigError: when an argument cannot work.
        """
        from airflow_provider_ray.client import pacing
        from airflow_provider_ray.client.serving.application import ServeRoute

        waiting = {"poll_interval": pacing.SERVE_INTERVAL_SECONDS, "timeout": seconds("timeout", timeout, zero=True)}
        request["request_timeout"] = seconds("request_timeout", request_timeout)
        return self.run(
            lambda client: ServeRoute(client, application, path, logger=self.log).call(**waiting, **request)
        )

    def _look_up(self) -> ClusterConfig:
        from airflow.providers.common.compat.sdk import mask_secret

        with self._readable():
            connection = self.get_connection(self.conn_id)
            extra = connection.extra_dejson
        config = self._config(connection, extra)
        for secret in _secrets(config):
            mask_secret(secret)
        return config

    async def _looked_up_again(self) -> ClusterConfig:
        """The connection as it is now; in a thread, since each client on a worker has an event loop of its own."""
        return await asyncio.to_thread(self._look_up)

    def _config(self, connection: Connection, extra: Any) -> ClusterConfig:
        from airflow_provider_ray.client.config import ClusterConfig

        options.apply()
        with self._named(connection):
            return ClusterConfig.from_fields(
                host=connection.host,
                port=connection.port,
                schema=connection.schema,
                login=connection.login,
                password=connection.password,
                extra=_json_object(connection, extra),
            )

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """A connection that Airflow cannot read is an error of that connection, without what Airflow read."""
        from airflow_provider_ray.client.errors import RayConfigError

        try:
            yield
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            got = f"fields that Airflow cannot read ({type(error).__name__})"
            raise RayConfigError(f"connection {self.conn_id!r}", got, "a connection as its form makes it") from None

    @contextmanager
    def _named(self, connection: Connection) -> Iterator[None]:
        """Reject a connection of another type, and name the connection in errors about its fields."""
        from airflow_provider_ray.client.errors import RayConfigError

        if connection.conn_type != self.conn_type:
            got = f"{self.conn_id!r} of type {connection.conn_type!r}"
            hint = "a conn_id in default_args reaches every task that does not set its own"
            raise RayConfigError("conn_id", got, f"a connection of type {self.conn_type!r}; {hint}")
        try:
            yield
        except RayConfigError as error:
            raise RayConfigError(f"connection {self.conn_id!r}, {error.field}", error.got, error.expected) from None


def _json_object(connection: Connection, extra: Any) -> Mapping[str, Any]:
    """The extra fields; Airflow decodes any JSON, and makes no fields of text that is not JSON.

    :raises RayConfigError: when they are anything but a JSON object; null counts as none.
    """
    from airflow_provider_ray.client.errors import RayConfigError

    if not isinstance(extra, Mapping | None):
        raise RayConfigError("extra", f"JSON of type {type(extra).__name__}", "a JSON object")
    if not extra and (connection.extra or "").strip() not in ("", "{}", "null"):
        try:
            json.loads(connection.extra or "")
        except ValueError:
            raise RayConfigError("extra", "text that is not JSON", "a JSON object") from None
    return extra or {}


def _secrets(config: ClusterConfig) -> list[str]:
    """Secrets for Airflow to mask. On its own, it masks the password and extras by name, but no header values."""
    from airflow_provider_ray.client.credentials import header_secrets

    basic_auth = config.basic_auth and config.basic_auth.removeprefix("Basic ")
    tokens = (config.token, config.login_password, basic_auth, config.serve_token)
    headers = header_secrets(config.auth_headers) | header_secrets(config.serve_auth_headers)
    return [secret for secret in (*tokens, *headers) if secret]


async def _describe(client: RayClient) -> str:
    version = await client.cluster.version()
    mode = await client.cluster.authentication_mode()
    nodes = await client.cluster.nodes()
    alive = sum(node.is_alive for node in nodes)
    auth = "token accepted" if mode == "token" else "no authentication"
    return f"Ray {version.ray_version}, {alive} of {len(nodes)} nodes alive, {auth}, {await _serve_state(client)}"


async def _serve_state(client: RayClient) -> str:
    from airflow_provider_ray.client.errors import RayRequestError

    try:
        details = await client.serve.details()
    except RayRequestError as error:
        return f"Serve not available ({error.status or 'no answer'})"
    if details.port is None:
        return "Serve not running"
    return f"Serve on port {details.port} (applications: {len(details.applications)})"
