"""Everything that can go wrong with a Ray cluster, as one tree.

::

    RayError
    ├── RayConfigError            a value given by the author or in the connection is wrong
    ├── RayRequestError           the cluster did not do what was asked
    │   ├── RayClusterUnavailable     no answer, or an answer that says "later" (408, 425, 429, 5xx)
    │   ├── RayAuthError              401 or 403
    │   ├── RayNotFound               404
    │   ├── RayRequestRefused         any other 4xx, a redirect, or a certificate that is not trusted
    │   └── RayNotADashboard          something answered, but it is not Ray's dashboard
    ├── RayJobError               a job did not end the way it should
    │   ├── RayJobFailed
    │   ├── RayJobStopped
    │   │   └── RayJobInterrupted
    │   ├── RayJobStopping
    │   ├── RayJobLost
    │   └── RayJobTimeout
    ├── RayServeError             a Serve application did not answer the way it should
    │   ├── RayServeNotReady
    │   ├── RayServeDeployFailed
    │   └── RayServeBadAnswer
    └── RayTriggerError           the triggerer, or Airflow around it, could not do its part

``transient`` says whether the same request may succeed later without anybody changing anything, ``retry_helps`` whether
another attempt of the whole task may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from airflow_provider_ray.client.json_text import storable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_ray.client.api.models import JobDetails


# Ray 2.50+: JOB_SUPERVISOR_ACTOR_START_TIMEOUT, _START_FAILURE, _UNSCHEDULABLE, _UNKNOWN_FAILURE, _DIED.
INFRASTRUCTURE_ERROR = "JOB_SUPERVISOR_ACTOR_"


class RayError(Exception):
    """Base of all errors of this package."""

    transient = False

    @property
    def retry_helps(self) -> bool:
        """Whether another attempt may end better, without anybody changing anything."""
        return self.transient

    @classmethod
    def from_message(cls, message: str) -> Self:
        """The error from its text alone."""
        error = cls.__new__(cls)
        Exception.__init__(error, message)
        return error

    def to_json(self) -> list[str]:
        """Class and text, for another process."""
        return [type(self).__name__, storable(str(self))]

    @staticmethod
    def from_json(error: Sequence[str]) -> RayError:
        """Build the error, with its class, from what :meth:`to_json` wrote."""
        name, message = error
        kinds = {kind.__name__: kind for kind in _tree(RayError)}
        return kinds[name].from_message(message)


def _tree(kind: type[RayError]) -> Iterator[type[RayError]]:
    yield kind
    for leaf in kind.__subclasses__():
        yield from _tree(leaf)


class RayConfigError(RayError, ValueError):
    """A field has a value that cannot work; raised before anything is submitted or called.

    :param field: name of the field, as the author wrote it.
    :param got: the offending value in words; never a secret.
    :param expected: what would have been right.
    """

    def __init__(self, field: str, got: str, expected: str) -> None:
        super().__init__(f"{field}: got {got}; expected {expected}")
        self.field = field
        self.got = got
        self.expected = expected


class RayRequestError(RayError):
    """A request to the cluster failed.

    :param request: method and URL, without credentials.
    :param reason: what the cluster, or the network, said.
    :param status: HTTP status, None when there was no answer.
    """

    status: int | None = None

    def __init__(self, request: str, reason: str, status: int | None = None) -> None:
        super().__init__(f"{request}: {reason}")
        self.status = status


class RayClusterUnavailable(RayRequestError):
    """No answer in time, or an answer that asks to come back later.

    :param never_sent: no connection was made, so nothing can have happened on the other side.
    """

    transient = True
    never_sent = False

    def __init__(self, request: str, reason: str, status: int | None = None, *, never_sent: bool = False) -> None:
        super().__init__(request, reason, status)
        self.never_sent = never_sent


class RayAuthError(RayRequestError):
    """The cluster refused the credentials: 401 when they are missing, 403 when they are wrong."""


class RayNotFound(RayRequestError):
    """The job, package or route does not exist on this cluster."""


class RayRequestRefused(RayRequestError):
    """The cluster understood the request and will not do it."""


class RayNotADashboard(RayRequestError):
    """Something else than a Ray dashboard answers at this address."""


class RayJobError(RayError):
    """A job did not end in SUCCEEDED.

    ``job`` is None where only the text is known.

    :param conn_id: connection of the cluster.
    :param job: last known details of the job.
    :param what: the verdict in words.
    :param log_tail: last lines of the driver's log.
    :param url: the job's page in Ray's dashboard.
    """

    job: JobDetails | None = None

    def __init__(
        self, conn_id: str, job: JobDetails, what: str, log_tail: Sequence[str] = (), url: str | None = None
    ) -> None:
        lines = [f"Ray job {job.submission_id!r} on {conn_id!r} {what}"]
        lines.append(f"status={job.status} error_type={job.error_type} driver_exit_code={job.driver_exit_code}")
        if job.message:
            # Ray's message goes on with the last lines of the log, which stand below.
            said = job.message.splitlines()[0] if log_tail else job.message
            lines.append(f"Ray says: {said}")
        if log_tail:
            lines += ["Last lines of the driver's log:", *(f"  {line}" for line in log_tail)]
        if url:
            lines.append(f"Dashboard: {url}")
        super().__init__("\n".join(lines))
        self.job = job


class RayJobFailed(RayJobError):
    """The driver, or Ray around it, failed."""

    @property
    def retry_helps(self) -> bool:
        """Whether Ray's own process for the job failed, and not the entrypoint or its environment."""
        return self.job is not None and (self.job.error_type or "").startswith(INFRASTRUCTURE_ERROR)


class RayJobStopped(RayJobError):
    """Somebody stopped the job."""


class RayJobInterrupted(RayJobStopped):
    """The job was stopped because the process of its task was told to end, by a rolling deploy for example."""

    retry_helps = True


class RayJobStopping(RayJobError):
    """An earlier job of the task was told to stop and has not ended yet."""

    retry_helps = True


class RayJobLost(RayJobError):
    """The job's cluster has forgotten it, or its driver died with its node; nobody will ever say how it ended."""

    retry_helps = True


class RayJobTimeout(RayJobError):
    """The job was not finished, or not started, when its time was up."""


class RayTriggerError(RayError):
    """A job could not be submitted or watched in the triggerer, for a reason that is not the cluster's."""

    retry_helps = True


class RayServeError(RayError):
    """A Serve application could not be reached or gave an unusable answer."""


class RayServeNotReady(RayServeError):
    """The application or route did not answer in time."""

    transient = True


class RayServeDeployFailed(RayServeError):
    """Ray could not deploy the application."""


class RayServeBadAnswer(RayServeError):
    """The application answered with an error status, with something that is not JSON, or with too much.

    :param status: HTTP status of the answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
