"""Call a Ray Serve application and return its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from time import time
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import mask_secret
from airflow.sdk import conf

from airflow_provider_ray.client.durations import seconds
from airflow_provider_ray.clusters.selection import check_clusters, resolve_one
from airflow_provider_ray.compat.tasks import RedactsRenderedFields
from airflow_provider_ray.compat.templates import is_literal
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.triggers.serve import RayServeTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_ray.client.api.ray_client import RayClient
    from airflow_provider_ray.client.serving.application import ServeRoute
    from airflow_provider_ray.clusters.selection import Clusters


class RayServeOperator(RedactsRenderedFields):
    """Wait until a Serve application or route is available, call it, and return the decoded JSON answer as XCom.

    A call is repeated only if it did not reach the application or was turned away: after a failed connection, a 503, a
    429, or a 404 while the application is not running. A GET is also repeated after a broken connection, and after a
    408 while the application is not running. In deferrable mode the triggerer waits and a worker makes the call. The
    log shows what is being waited for, and a line about the answer. The cluster's token is never sent to Serve; the
    connection has a separate field for Serve's token.

    :param application: name of the application; None when ``path`` is the complete route. (templated)
    :param path: path below the application's route prefix, or from Serve's root, such as ``/items?n=3``. It is
        appended as it is: the default ``/`` asks for the prefix with a slash at its end, as FastAPI wants it, and an
        empty path for the prefix without one. (templated)
    :param conn_id: connection of type ``ray``. It may be given in any form that names exactly one cluster: an id, a
        list of one, or a label selector that matches one. (templated)
    :param method: GET, POST, PUT or DELETE. (templated)
    :param data: JSON-serializable body; None for no body. (templated)
    :param headers: additional headers; credentials belong in the connection. (templated)
    :param submission_id: the job that should deploy the application; waiting ends when that job ends. (templated)
    :param request_timeout: limit for one call, in seconds or as a ``timedelta``.
    :param timeout: limit for waiting and repeated calls together, in seconds or as a ``timedelta``.
    :param poll_interval: longest time between two checks, in seconds or as a ``timedelta``.
    :param max_answer_bytes: largest answer accepted into XCom, in bytes; default 1 MiB.
    :param deferrable: wait in the triggerer; default ``[operators] default_deferrable``.
    :raises RayConfigError: in the Dag file, or before anything is called, when an argument cannot work.
    :raises RayServeNotReady: when the application did not answer within ``timeout``; the error says what was missing.
    :raises RayJobLost: when the cluster does not know the job named by ``submission_id``.
    :raises RayServeDeployFailed: when Ray could not deploy the application.
    :raises RayServeBadAnswer: for an error status, and for an answer that is not JSON or too large.
    """

    template_fields: Sequence[str] = (
        "conn_id",
        "application",
        "path",
        "method",
        "data",
        "headers",
        "submission_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"data": "json", "headers": "json"}
    ui_color = "#e2f4e4"

    def __init__(
        self,
        *,
        application: str | None = None,
        path: str = "/",
        conn_id: Clusters = RayHook.default_conn_name,
        method: str = "GET",
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        submission_id: str | None = None,
        request_timeout: float | timedelta = 60,
        timeout: float | timedelta = 600,
        poll_interval: float | timedelta = 5,
        max_answer_bytes: int = 1024 * 1024,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_clusters(conn_id, one=True)
        self.application = application
        self.path = path
        self.conn_id = conn_id
        self.method = method
        self.data = data
        self.headers = headers
        self.submission_id = submission_id
        self.request_timeout = seconds("request_timeout", request_timeout)
        self.timeout = seconds("timeout", timeout)
        self.poll_interval = seconds("poll_interval", poll_interval)
        self.max_answer_bytes = max_answer_bytes
        self.deferrable = deferrable
        self._check_literals()

    def execute(self, context: Context) -> Any:
        """Call the application, after waiting for it here or in the triggerer."""
        self._check_arguments()
        hook, end_time = RayHook(resolve_one(self.conn_id)), time() + self.timeout
        if self.deferrable and not self._answers(hook):
            self.defer(trigger=self._trigger(hook.conn_id, end_time), method_name="execute_complete")
        return self._call(hook, self.timeout)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Call the application that the trigger has found ready."""
        from airflow_provider_ray.client.errors import RayError

        if fault := event["fault"]:
            raise RayError.from_json(fault)
        # The cluster that the task waited for, even if a selector matches another one by now.
        return self._call(
            RayHook(event["conn_id"], accepted=True), max(event["end_time"] - time(), self.request_timeout)
        )

    def redact_rendered_fields(self) -> None:
        """Have Airflow mask credentials in what is sent; on its own, it goes by the names of headers alone."""
        from airflow_provider_ray.client.credentials import find_secrets, header_secrets

        headers = self.headers if isinstance(self.headers, Mapping) else {}
        texts = {name: value for name, value in headers.items() if isinstance(value, str)}
        for secret in header_secrets(texts) | find_secrets([self.path, self.data]):
            mask_secret(secret)

    def _answers(self, hook: RayHook) -> bool:
        return hook.run(lambda client: self._route(client).url(within=self.timeout)) is not None

    def _call(self, hook: RayHook, timeout: float) -> Any:
        return hook.run(
            lambda client: self._route(client).call(
                poll_interval=self.poll_interval,
                timeout=timeout,
                method=self.method,
                data=self.data,
                headers=self.headers,
                request_timeout=self.request_timeout,
                max_answer_bytes=self.max_answer_bytes,
            )
        )

    def _route(self, client: RayClient) -> ServeRoute:
        from airflow_provider_ray.client.serving.application import ServeRoute

        return ServeRoute(client, self.application, self.path, self.submission_id, logger=self.log)

    def _trigger(self, conn_id: str, end_time: float) -> RayServeTrigger:
        return RayServeTrigger(
            conn_id=conn_id,
            application=self.application,
            path=self.path,
            submission_id=self.submission_id,
            poll_interval=self.poll_interval,
            end_time=end_time,
        )

    def _check_literals(self) -> None:
        """Check in the Dag file what is known there, without loading the client."""
        from airflow_provider_ray.client.api.serve_method import check_method
        from airflow_provider_ray.client.values import as_json, check_headers

        if is_literal(self.method):
            check_method(self.method)
        if is_literal(self.headers):
            check_headers("headers", self.headers or {})
        if is_literal(self.data):
            as_json("data", self.data)

    def _check_arguments(self) -> None:
        from airflow_provider_ray.client.api.serve import check_request
        from airflow_provider_ray.client.serving.application import check_route
        from airflow_provider_ray.client.values import as_json

        check_route(self.application, self.path, self.submission_id)
        check_request(self.method, self.headers, self.max_answer_bytes)
        as_json("data", self.data)
