"""What came of a fan-out: the chains' states and XComs, put together by cluster."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskInstanceState
from airflow.sdk.log import redact  # type: ignore[attr-defined]  # Airflow 3.3 does not say that it exports it

from airflow_provider_ray.client.json_text import storable
from airflow_provider_ray.client.states import FAILED, SUCCEEDED

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_ray.fan_out.plan import Shard

# XCom of a task that failed for good.
FAULT_KEY = "ray_fault"
FAULT_CHARACTERS = 2000
# The other statuses of a cluster in the result are those of a job.
NO_WORK = "NO_WORK"


def note_fault(context: Context) -> None:
    """Leave behind why a task failed, for the merged result; an ``on_failure_callback``."""
    from airflow_provider_ray.client.errors import RayClusterUnavailable, RayJobError, RayJobLost

    error = context.get("exception")
    job = error.job if isinstance(error, RayJobError) else None
    fault = {
        "error_type": type(error).__name__,
        "message": without_secrets(error),
        "is_the_clusters": isinstance(error, RayClusterUnavailable | RayJobLost),
        "seconds": job.seconds if job else None,
    }
    context["ti"].xcom_push(key=FAULT_KEY, value=fault)


def without_secrets(error: object) -> str:
    """The text of an error for an XCom, which Airflow neither masks nor cleans as it does a log."""
    return str(storable(str(redact(str(error)))))[:FAULT_CHARACTERS]


class Chains:
    """The chains of tasks in a mapped task group, one per shard.

    :param context: of the task that asks.
    :param group_id: the mapped task group.
    :param serves: whether the chains have the task ``collect``.
    """

    def __init__(self, context: Context, group_id: str, *, serves: bool) -> None:
        self._ti: Any = context["ti"]
        self._group_id = group_id
        # Whether the job was there, its answer came, and how it ended; whether it could be released decides nothing.
        self._decisive = ("submit", *(["collect"] if serves else []), "wait")
        tasks = [f"{group_id}.{name}" for name in self._decisive]
        found = self._ti.get_task_states(dag_id=self._ti.dag_id, task_ids=tasks, run_ids=[self._ti.run_id])
        self._states: Mapping[str, str] = found.get(self._ti.run_id) or {}

    def outcome(self, index: int, shard: Shard) -> dict[str, Any]:
        """What came of a shard."""
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

    def _fault(self, index: int) -> dict[str, Any] | None:
        """Why a chain did not come to its end: the first task that failed, else the first that did not run."""
        states = {name: self._states.get(f"{self._group_id}.{name}_{index}") for name in self._decisive}
        bad = {name: state for name, state in states.items() if state != TaskInstanceState.SUCCESS}
        if not bad:
            return None
        failed = [name for name, state in bad.items() if state == TaskInstanceState.FAILED]
        name = (failed or list(bad))[0]
        noted = self._pull(name, index, FAULT_KEY) if failed else None
        unknown = {"error_type": None, "message": f"the task is {bad[name]}", "is_the_clusters": False}
        found = noted or unknown
        return {"task": name, **{key: found[key] for key in unknown}}

    def _pull(self, task: str, index: int, key: str = "return_value") -> Any:
        return self._ti.xcom_pull(task_ids=f"{self._group_id}.{task}", map_indexes=index, key=key)


Outcomes = Sequence[tuple["Shard", dict[str, Any]]]


def merge(
    own: Outcomes, taken_over: Outcomes, idle: Sequence[str], away: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The result of a fan-out by connection id.

    :param own: what came of each cluster's own shard.
    :param taken_over: what came of the shards that clusters took over from others.
    :param idle: clusters that got no work.
    :param away: why clusters could not be asked what they have.
    """
    nothing = {"share": 0.0, "offset": None, "amount": 0, "submission_id": None, "seconds": None, "output": None}
    merged = {shard.conn_id: {**outcome, "taken_over": []} for shard, outcome in own}
    for conn_id in idle:
        merged[conn_id] = {**nothing, "status": NO_WORK, "error": None, "taken_over": []}
    for conn_id, message in away.items():
        fault = {"task": "plan", "error_type": "RayClusterUnavailable", "message": message, "is_the_clusters": True}
        merged[conn_id] = {**nothing, "status": FAILED, "error": fault, "taken_over": []}
    for shard, outcome in taken_over:
        merged[shard.conn_id]["taken_over"].append({"from": shard.taken_over_from, **outcome})
    return merged


def succeeded(merged: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Clusters whose work is done, by themselves or by those that took it over."""
    rescued: dict[str, list[bool]] = {}
    for result in merged.values():
        for part in result["taken_over"]:
            rescued.setdefault(part["from"], []).append(part["status"] == SUCCEEDED)
    return [
        conn_id
        for conn_id, result in merged.items()
        if result["status"] == SUCCEEDED or all(rescued.get(conn_id, [False]))
    ]


def complaints(merged: Mapping[str, Mapping[str, Any]], done: Container[str]) -> list[str]:
    """A line for each cluster whose work is not done."""
    return [
        f"{conn_id}: {result['error']['task']}: {(result['error']['message'].splitlines() or ['no reason given'])[0]}"
        for conn_id, result in merged.items()
        if conn_id not in done and result["error"]
    ]
