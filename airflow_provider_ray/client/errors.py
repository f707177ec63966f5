"""All errors of this package, as one tree.

::

    RayError
    ├── RayConfigError            a value in the Dag or in the connection is invalid
    ├── RayRequestError           a request to the cluster failed
    │   ├── RayClusterUnavailable     no answer, or one that means "try later" (408, 425, 429, 5xx)
    │   ├── RayAuthError              401 or 403
    │   │   └── RayAuthLapsed             the cluster accepted the credentials before
    │   ├── RayNotFound               404
    │   ├── RayRequestRefused         any other 4xx, a redirect, or an untrusted certificate
    │   ├── RayNotADashboard          something other than Ray's dashboard answered
    │   └── RayAnswerTooLarge         an answer has more bytes than answers to this request may have
    ├── RayJobError               a job did not succeed
    │   ├── RayJobFailed
    │   ├── RayJobStopped
    │   │   └── RayJobInterrupted
    │   ├── RayJobStopping
    │   ├── RayJobLost
    │   └── RayJobTimeout
    ├── RayServeError             a Serve application could not be reached or gave an unusable answer
    │   ├── RayServeNotReady
    │   ├── RayServeDeployFailed
    │   └── RayServeBadAnswer
    └── RayTriggerError           the triggerer, or Airflow itself, failed

``transient`` says whether the same request may succeed later without any change, ``retry_helps`` whether another
attempt of the task may.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol, Self

from airflow_provider_ray.client.json_text import sanitized

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


# Ray 2.50+: JOB_SUPERVISOR_ACTOR_START_TIMEOUT, _START_FAILURE, _UNSCHEDULABLE, _UNKNOWN_FAILURE, _DIED.
INFRASTRUCTURE_ERROR = "JOB_SUPERVISOR_ACTOR_"
# Ray 2.49-2.60: the cluster has forgotten the package of a working_dir; another attempt uploads it again.
FORGOTTEN_PACKAGE = "Failed to download runtime_env file package gcs://"
# Ray says START_FAILURE also when it rejects a runtime_env or a resource, with a traceback that ends like this.
REJECTION = re.compile(r"^Failed to start supervisor actor .*^(?:ValueError|TypeError): ", re.DOTALL | re.MULTILINE)


class RayError(Exception):
    """Base class of all errors of this package."""

    transient = False

    @property
    def retry_helps(self) -> bool:
        """Whether another attempt of the task may succeed without any change."""
        return self.transient

    @classmethod
    def from_message(cls, message: str) -> Self:
        """An error that consists of its text alone."""
        error = cls.__new__(cls)
        Exception.__init__(error, message)
        return error

    def to_json(self) -> list[str]:
        """Class name and text, to be sent to another process."""
        return [type(self).__name__, sanitized(str(self))]

    @staticmethod
    def from_json(error: Sequence[str]) -> RayError:
        """The error that :meth:`to_json` was called on, with its class and text."""
        name, message = error
        kinds = {kind.__name__: kind for kind in _tree(RayError)}
        return kinds[name].from_message(message)


def _tree(kind: type[RayError]) -> Iterator[type[RayError]]:
    yield kind
    for leaf in kind.__subclasses__():
        yield from _tree(leaf)


class RayConfigError(RayError, ValueError):
    """A field has an invalid value; raised before anything is submitted or called.

    :param field: name of the field, as the author wrote it.
    :param got: the invalid value, described without secrets.
    :param expected: what would be valid.
    """

    def __init__(self, field: str, got: str, expected: str) -> None:
        super().__init__(f"{field}: got {got}; expected {expected}")
        self.field = field
        self.got = got
        self.expected = expected


class RayRequestError(RayError):
    """A request to the cluster failed.

    :param request: method and URL, without credentials.
    :param reason: what the cluster or the network reported.
    :param status: HTTP status, None when there was no answer.
    """

    status: int | None = None
    # Whether other credentials or certificates could change the answer.
    about_credentials = False

    def __init__(self, request: str, reason: str, status: int | None = None) -> None:
        # The reason may hold what a cluster sent, and the error may become part of an event, a log or an XCom.
        super().__init__(sanitized(f"{request}: {reason}"))
        self.status = status


class RayClusterUnavailable(RayRequestError):
    """The cluster did not answer in time, or answered that the request should be repeated later.

    :param never_sent: no connection was made, so the request cannot have had any effect.
    """

    transient = True
    never_sent = False

    def __init__(self, request: str, reason: str, status: int | None = None, *, never_sent: bool = False) -> None:
        super().__init__(request, reason, status)
        self.never_sent = never_sent


class RayAuthError(RayRequestError):
    """The cluster rejected the credentials: 401 if they are missing, 403 if they are wrong."""

    about_credentials = True


class RayAuthLapsed(RayAuthError):
    """The cluster rejects credentials, or one side a certificate, that were accepted before: they are being rotated.

    Until the connection and its files hold the new ones, this passes as an outage does. It says nothing about the jobs
    on the cluster.
    """

    transient = True
    # Whether other credentials are in use by now.
    has_renewed = False


class RayNotFound(RayRequestError):
    """The job, package or route does not exist on this cluster."""


class RayRequestRefused(RayRequestError):
    """The cluster understood the request and refused it."""


class RayNotADashboard(RayRequestError):
    """Something other than a Ray dashboard answers at this address."""


class RayAnswerTooLarge(RayRequestError):
    """An answer has more bytes than answers to this request may have.

    :param request: method and URL, without credentials.
    :param size: how many bytes were announced; None when they were counted until there were too many.
    :param most: how many bytes are accepted.
    :param status: HTTP status of the answer.
    :param limit: what the reader knows the limit as.
    """

    def __init__(self, request: str, size: int | None, most: int, status: int, limit: str = "the limit") -> None:
        has = f"more than {most}" if size is None else str(size)
        super().__init__(request, f"the answer has {has} bytes, {limit} is {most}", status)


class KnownJob(Protocol):
    """What an error needs to know about a job: a :class:`~airflow_provider_ray.client.api.models.JobDetails`."""

    @property
    def submission_id(self) -> str | None:
        """Id of the job."""

    @property
    def status(self) -> str:
        """Its last known status."""

    @property
    def error_type(self) -> str | None:
        """Ray's class of the failure."""

    @property
    def driver_exit_code(self) -> int | None:
        """Exit code of the driver."""

    @property
    def message(self) -> str | None:
        """What Ray says about it."""

    @property
    def seconds(self) -> float | None:
        """Seconds from its submission to its end."""


class RayJobError(RayError):
    """A job did not succeed.

    ``job`` is None if only the text is known.

    :param conn_id: connection of the cluster.
    :param job: last known details of the job.
    :param what: what happened to the job, such as "failed".
    :param log_tail: last lines of the driver log.
    :param url: the job's page in Ray's dashboard.
    """

    job: KnownJob | None = None

    def __init__(
        self, conn_id: str, job: KnownJob, what: str, log_tail: Sequence[str] = (), url: str | None = None
    ) -> None:
        lines = [f"Ray job {job.submission_id!r} on {conn_id!r} {what}"]
        lines.append(f"status={job.status} error_type={job.error_type} driver_exit_code={job.driver_exit_code}")
        if job.message:
            # After its first line, Ray's message repeats the last lines of the log, which are appended below.
            said = job.message.splitlines()[0] if log_tail else job.message
            lines.append(f"Ray says: {said}")
        if log_tail:
            lines += ["Last lines of the driver log:", *(f"  {line}" for line in log_tail)]
        if url:
            lines.append(f"Dashboard: {url}")
        super().__init__("\n".join(lines))
        self.job = job


class RayJobFailed(RayJobError):
    """The driver failed, or Ray failed to run it."""

    @property
    def retry_helps(self) -> bool:
        """Whether Ray's own process for the job failed or lost its files, rather than the entrypoint."""
        if self.job is None or REJECTION.match(self.job.message or ""):
            return False
        has_died = (self.job.error_type or "").startswith(INFRASTRUCTURE_ERROR)
        return has_died or FORGOTTEN_PACKAGE in (self.job.message or "")


class RayJobStopped(RayJobError):
    """The job was stopped before it finished."""


class RayJobInterrupted(RayJobStopped):
    """The job was stopped because the task process was terminated, for example by a rolling deploy."""

    retry_helps = True


class RayJobStopping(RayJobError):
    """An earlier job of the task has not stopped yet after a stop request."""

    retry_helps = True


class RayJobLost(RayJobError):
    """The cluster has forgotten the job, or the driver died with its node; its result will never be known."""

    retry_helps = True


class RayJobTimeout(RayJobError):
    """The job did not finish, or did not start, in time."""


class RayTriggerError(RayError):
    """The triggerer could not submit or watch a job, and the cluster is not the cause."""

    retry_helps = True


class RayServeError(RayError):
    """A Serve application could not be reached or gave an unusable answer."""


class RayServeNotReady(RayServeError):
    """The application or its route was not available in time."""

    transient = True


class RayServeDeployFailed(RayServeError):
    """Ray could not deploy the application."""


class RayServeBadAnswer(RayServeError):
    """The application answered with an error status, with something other than JSON, or with too much data.

    :param status: HTTP status of the answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
