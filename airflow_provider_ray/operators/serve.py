"""Call a Ray Serve application and return its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from time import time
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator, conf

from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.jobs.definition import seconds
from airflow_provider_ray.triggers.serve import RayServeTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_ray.client.api.ray_client import RayClient
    from airflow_provider_ray.client.serving.application import ServeTarget


class RayServeOperator(BaseOperator):
    """Wait until a Serve application or route answers, call it, and return the decoded JSON into XCom.

    A call is repeated only when it did not reach the application or was turned away: no connection, 503, or 404 while
    it is not running; a GET also when the connection broke, and after a 408 while it is not running. In deferrable mode
    the triggerer waits, and a worker makes the call. The cluster's token is never sent to Serve; the connection has a
    token of its own for that.

    :param application: name of the application; None when ``path`` is the whole route. (templated)
    :param path: path below the application's route prefix, or from Serve's root. (templated)
    :param conn_id: connection of type ``ray``. (templated)
    :param method: GET, POST, PUT or DELETE. (templated)
    :param data: JSON-able body; None for no body. (templated)
    :param headers: further headers; credentials belong into the connection. (templated)
    :param submission_id: the job that is to deploy the application; waiting ends when the job does. (templated)
    :param request_timeout: seconds for one call.
    :param timeout: seconds for waiting and repeated calls together.
    :param poll_interval: longest time between two looks, in seconds.
    :param max_answer_bytes: largest answer that is taken into XCom; default 1 MiB.
    :param deferrable: wait in the triggerer; default ``[operators] default_deferrable``.
    :raises RayConfigError: before anything is called, when a field cannot work.
    :raises RayServeNotReady: when the application did not answer within ``timeout``; says what was missing.
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
        conn_id: str = RayHook.default_conn_name,
        method: str = "GET",
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        submission_id: str | None = None,
        request_timeout: float = 60,
        timeout: float | timedelta = 600,
        poll_interval: float = 5,
        max_answer_bytes: int = 1024 * 1024,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.application = application
        self.path = path
        self.conn_id = conn_id
        self.method = method
        self.data = data
        self.headers = headers
        self.submission_id = submission_id
        self.request_timeout = request_timeout
        self.timeout = seconds(timeout)
        self.poll_interval = poll_interval
        self.max_answer_bytes = max_answer_bytes
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Call the application, after waiting for it here or in the triggerer."""
        self._check_arguments()
        end_time = time() + self.timeout
        if self.deferrable and not self._answers():
            self.defer(trigger=self._trigger(end_time), method_name="execute_complete")
        return self._call(self.timeout)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Call the application that the trigger has found ready."""
        from airflow_provider_ray.client.errors import RayError

        if fault := event["fault"]:
            raise RayError.from_json(fault)
        return self._call(max(event["end_time"] - time(), self.request_timeout))

    def _answers(self) -> bool:
        return RayHook(self.conn_id).run(lambda client: self._target(client).url()) is not None

    def _call(self, timeout: float) -> Any:
        return RayHook(self.conn_id).run(
            lambda client: self._target(client).call(
                poll_interval=self.poll_interval,
                timeout=timeout,
                method=self.method,
                data=self.data,
                headers=self.headers,
                request_timeout=self.request_timeout,
                max_answer_bytes=self.max_answer_bytes,
            )
        )

    def _target(self, client: RayClient) -> ServeTarget:
        from airflow_provider_ray.client.serving.application import ServeTarget

        return ServeTarget(client, self.application, self.path, self.submission_id)

    def _trigger(self, end_time: float) -> RayServeTrigger:
        return RayServeTrigger(
            conn_id=self.conn_id,
            application=self.application,
            path=self.path,
            submission_id=self.submission_id,
            poll_interval=self.poll_interval,
            end_time=end_time,
        )

    def _check_arguments(self) -> None:
        from airflow_provider_ray.client.api.job_spec import as_json, check_seconds
        from airflow_provider_ray.client.api.serve import check_request
        from airflow_provider_ray.client.errors import RayConfigError

        for name in ("request_timeout", "timeout", "poll_interval"):
            check_seconds(name, getattr(self, name))
        if not isinstance(self.path, str):
            raise RayConfigError("path", repr(self.path), "a path such as /predict")
        if not isinstance(self.max_answer_bytes, int) or self.max_answer_bytes < 1:
            raise RayConfigError("max_answer_bytes", repr(self.max_answer_bytes), "a number of bytes above 0")
        check_request(self.method, self.headers)
        as_json("data", self.data)
