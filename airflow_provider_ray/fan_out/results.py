"""The results of a fan-out: states and XComs of the cluster tasks, put together by cluster."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from airflow.sdk import TaskInstanceState

from airflow_provider_ray.client.states import FAILED, SUCCEEDED
from airflow_provider_ray.compat.tasks import task_state
from airflow_provider_ray.fan_out.faults import FAULT_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_ray.fan_out.plan import Shard

# The other statuses of a cluster in the result are those of a job.
NO_WORK = "NO_WORK"


class Fault(TypedDict):
    """Why a shard has failed.

    :param task: the task that failed, such as ``submit``.
    :param error_type: name of the exception's class; None when it is unknown.
    :param message: text of the exception, with secrets masked.
    :param is_the_clusters: the cluster became unavailable or lost the job, so another cluster may succeed.
    """

    task: str
    error_type: str | None
    message: str
    is_the_clusters: bool


class ShardResult(TypedDict):
    """The outcome of one shard.

    :param share: part of the total work, from 0 to 1.
    :param offset: first number of the range; None for items.
    :param amount: how many numbers or items.
    :param status: ``SUCCEEDED``, ``FAILED`` or ``NO_WORK``.
    :param submission_id: id of the job; None when nothing was submitted.
    :param seconds: time from the job's submission to its end; None when it is unknown.
    :param output: what ``collect`` returned.
    :param error: why the shard has failed; None when it has not.
    """

    share: float
    offset: int | None
    amount: int
    status: str
    submission_id: str | None
    seconds: float | None
    output: Any
    error: Fault | None


# The functional form, because the key is a keyword of Python.
_From = TypedDict("_From", {"from": str})


class TakenOver(_From, ShardResult):
    """The outcome of a shard that a cluster took over; ``from`` is the connection id of the cluster that had it."""


class ClusterResult(ShardResult):
    """What ``merge`` returns for one cluster.

    :param taken_over: the outcomes of the shards that the cluster took over from others.
    """

    taken_over: list[TakenOver]


@dataclass(frozen=True, slots=True)
class MappedTasks:
    """The tasks of a mapped task group that have ended, one set for each shard.

    :param ti: the task instance that sends the requests to Airflow.
    :param group_id: the mapped task group.
    :param decisive: tasks that show whether the job was submitted, answered and ended well; ``release`` does not.
    :param states: states of these tasks, as Airflow returns them.
    """

    ti: Any
    group_id: str
    decisive: Sequence[str]
    states: dict[str, dict[str, str]]

    @classmethod
    def ask(cls, context: Context, group_id: str, *, serves: bool) -> MappedTasks:
        """Request the states of the tasks from Airflow.

        :param context: context of the task that does so.
        :param group_id: the mapped task group.
        :param serves: whether the group has the task ``collect``.
        """
        ti: Any = context["ti"]
        decisive = ("submit", "collect", "wait") if serves else ("submit", "wait")
        tasks = [f"{group_id}.{name}" for name in decisive]
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=tasks, run_ids=[ti.run_id])
        return cls(ti, group_id, decisive, states)

    def outcome(self, index: int, shard: Shard) -> ShardResult:
        """The outcome of a shard.

        :param index: map index of its tasks.
        """
        fault = self._fault(index)
        waited = self._pull("wait", index) or self._pull("wait", index, FAULT_KEY) or {}
        return {
            "share": shard.share,
            "offset": shard.offset,
            "amount": shard.amount,
            "status": FAILED if fault else SUCCEEDED,
            "submission_id": self._pull("submit", index, "submission_id"),
            "seconds": waited.get("seconds"),
            "output": None if fault else self._pull("collect", index),
            "error": fault,
        }

    def _fault(self, index: int) -> Fault | None:
        """Why a shard's tasks did not all succeed: the first task that failed, or else the first that did not run."""
        states = {
            name: task_state(self.states, self.ti.run_id, f"{self.group_id}.{name}", index) for name in self.decisive
        }
        bad = {name: state for name, state in states.items() if state != TaskInstanceState.SUCCESS}
        if not bad:
            return None
        failed = [name for name, state in bad.items() if state == TaskInstanceState.FAILED]
        name = (failed or list(bad))[0]
        noted = self._pull(name, index, FAULT_KEY) if failed else None
        unknown = {"error_type": None, "message": f"the task is {bad[name]}", "is_the_clusters": False}
        found: dict[str, Any] = noted or unknown
        return {
            "task": name,
            "error_type": found["error_type"],
            "message": found["message"],
            "is_the_clusters": found["is_the_clusters"],
        }

    def _pull(self, task: str, index: int, key: str = "return_value") -> Any:
        return self.ti.xcom_pull(task_ids=f"{self.group_id}.{task}", map_indexes=index, key=key)


Outcomes = Sequence[tuple["Shard", ShardResult]]


def merge(
    own: Outcomes, taken_over: Outcomes, idle: Sequence[str], unavailable: Mapping[str, str]
) -> dict[str, ClusterResult]:
    """The result of a fan-out, by connection id.

    :param own: the outcome of each cluster's own shard.
    :param taken_over: the outcomes of the shards that clusters took over from others.
    :param idle: clusters that got no work.
    :param unavailable: why the capacity of clusters could not be read, by connection id.
    """
    merged: dict[str, ClusterResult] = {shard.conn_id: {**outcome, "taken_over": []} for shard, outcome in own}
    for conn_id in idle:
        merged[conn_id] = _without_work(NO_WORK, None)
    for conn_id, message in unavailable.items():
        fault: Fault = {
            "task": "plan",
            "error_type": "RayClusterUnavailable",
            "message": message,
            "is_the_clusters": True,
        }
        merged[conn_id] = _without_work(FAILED, fault)
    for shard, outcome in taken_over:
        merged[shard.conn_id]["taken_over"].append({"from": str(shard.taken_over_from), **outcome})
    return merged


def succeeded(merged: Mapping[str, ClusterResult]) -> list[str]:
    """Clusters whose work is done, by themselves or by the clusters that took it over."""
    rescued: dict[str, list[bool]] = {}
    for result in merged.values():
        for part in result["taken_over"]:
            rescued.setdefault(part["from"], []).append(part["status"] == SUCCEEDED)
    return [
        conn_id
        for conn_id, result in merged.items()
        if result["status"] == SUCCEEDED or all(rescued.get(conn_id, [False]))
    ]


def failure_lines(merged: Mapping[str, ClusterResult], done: Container[str]) -> list[str]:
    """A line for each cluster whose work is not done."""
    return [
        f"{conn_id}: {error['task']}: {_cause(error['message'])}"
        for conn_id, result in merged.items()
        if conn_id not in done and (error := result["error"])
    ]


def report(merged: Mapping[str, ClusterResult]) -> list[str]:
    """A line for each part of the work, for the log of ``merge``."""
    parts: list[tuple[str, ShardResult]] = []
    for conn_id, result in merged.items():
        parts.append((conn_id, result))
        parts += [(f"{conn_id} for {part['from']}", part) for part in result["taken_over"]]
    width = max((len(name) for name, _ in parts), default=0)
    return [f"{name:{width}}  {part['status']:9}  {_details(part)}" for name, part in parts]


def _details(part: ShardResult) -> str:
    size = f"{part['share']:.1%} of the work ({part['amount']})"
    if error := part["error"]:
        return f"{size}; {error['task']}: {_cause(error['message'])}"
    return size if part["seconds"] is None else f"{size} in {part['seconds']:.1f} s"


def _cause(message: str) -> str:
    """The first line of an error and, for a job that failed, the last one that its driver wrote."""
    first, *rest = message.splitlines() or ["no reason given"]
    logged = [line.strip() for line in rest if line.startswith("  ") and line.strip()]
    return f"{first}: {logged[-1]}" if logged else first


def _without_work(status: str, error: Fault | None) -> ClusterResult:
    return {
        "share": 0.0,
        "offset": None,
        "amount": 0,
        "status": status,
        "submission_id": None,
        "seconds": None,
        "output": None,
        "error": error,
        "taken_over": [],
    }
