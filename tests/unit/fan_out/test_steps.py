"""What plan, replan and merge do in a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.context import set_current_context

from airflow_provider_ray.client.api.models import JobDetails
from airflow_provider_ray.client.errors import (
    RayClusterUnavailable,
    RayConfigError,
    RayJobFailed,
    RayJobLost,
    RayJobStopping,
)
from airflow_provider_ray.fan_out import ray_fan_out
from airflow_provider_ray.fan_out.faults import note_fault
from airflow_provider_ray.fan_out.plan import Shard
from airflow_provider_ray.hooks.ray import RayHook
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.client.test_values import Lazy
from tests.unit.conftest import connect

Clusters = dict[str, FakeDashboard]

GONE = RayClusterUnavailable("GET http://b", "no answer")
LOST = RayJobLost.from_message("the head has restarted")
FAILED = RayJobFailed("b", JobDetails(submission_id="j", status="FAILED"), "failed\nand more")


class TaskInstance:
    """What the tasks of a fan-out use of a task instance."""

    dag_id, run_id = "d", "run"

    def __init__(self, run: Run, task_id: str, map_index: int | None = None) -> None:
        self.run = run
        self.task_id = task_id
        self.map_index = map_index

    def xcom_push(self, key: str, value: Any) -> None:
        self.run.xcoms[self.task_id, self.map_index, key] = json.loads(json.dumps(value))

    def xcom_pull(
        self,
        *,
        task_ids: str | list[str],
        key: str = "return_value",
        map_indexes: int | None = None,
        default: Any = None,
    ) -> Any:
        if isinstance(task_ids, list):
            found = {name: value for name, value in self.run.xcoms.items() if name[0] in task_ids and name[2] == key}
            return [value for name, value in found.items() if map_indexes in (None, name[1])]
        return self.run.xcoms.get((task_ids, map_indexes, key), default)

    def get_task_states(self, *, dag_id: str, task_ids: list[str], run_ids: list[str]) -> dict[str, dict[str, str]]:
        assert (dag_id, run_ids) == (self.dag_id, [self.run_id])
        wanted = {key: state for key, state in self.run.states.items() if key.rpartition("_")[0] in task_ids}
        return {self.run_id: wanted}


class Run:
    """A run of a fan-out over the clusters a, b and c: states and XComs of its tasks, as Airflow keeps them."""

    def __init__(self, **arguments: Any) -> None:
        self.params = arguments.pop("params", {})
        self.xcoms: dict[tuple[str, int | None, str], Any] = {}
        self.states: dict[str, str] = {}
        work = {} if "items" in arguments else {"amount": 400}
        given = {"clusters": ["a", "b", "c"], "weights": {"CPU": 1}, "job": {"entrypoint": "true"}, **work}
        default_args = arguments.pop("default_args", {})
        with DAG("d", schedule=None, start_date=pendulum.datetime(2026, 1, 1), default_args=default_args) as self.dag:
            ray_fan_out(**{**given, **arguments})

    def run(self, name: str) -> Any:
        """Run plan, replan or merge with the XComs that it takes from the others."""
        task: Any = self.dag.get_task(f"fan_out.{name}")
        ti = TaskInstance(self, task.task_id)
        context: Any = {"ti": ti, "params": self.params}
        with set_current_context(context):
            task.render_template_fields(context)
            ti.xcom_push("return_value", task.execute(context))
        return self.xcom(name)

    def xcom(self, name: str, key: str = "return_value") -> Any:
        return self.xcoms.get((f"fan_out.{name}", None, key))

    def fail(self, name: str, map_index: int | None = None) -> None:
        """Call the callbacks of a task that has failed for good."""
        task: Any = self.dag.get_task(f"fan_out.{name}")
        for callback in task.on_failure_callback:
            callback({"ti": TaskInstance(self, task.task_id, map_index), "exception": FAILED})

    def ended(
        self, index: int, *, group: str = "on_cluster", error: Exception | None = None, output: Any = None
    ) -> None:
        """Record states and XComs of a shard whose tasks have ended; with an error, ``wait`` has failed."""
        for name in ("submit", "collect", "wait"):
            self.states[f"fan_out.{group}.{name}_{index}"] = "failed" if error and name == "wait" else "success"
        submit, collect, wait = (
            TaskInstance(self, f"fan_out.{group}.{name}", index) for name in ("submit", "collect", "wait")
        )
        submit.xcom_push("submission_id", f"{group}-{index}")
        if output is not None:
            collect.xcom_push("return_value", output)
        if error:
            note_fault({"ti": wait, "exception": error})  # type: ignore[typeddict-item]
        else:
            wait.xcom_push("return_value", {"seconds": 4.5})


@pytest.fixture
def clusters(clusters: Clusters) -> Clusters:
    """Three different clusters, of which a has twice as many CPUs as b or c."""
    for (conn_id, fake), cpus in zip(clusters.items(), (4, 2, 2), strict=True):
        fake.session_name = f"session_{conn_id}"
        fake.nodes[0]["resources_total"] = {"CPU": cpus}
    return clusters


def parts(planned: list[Any]) -> list[tuple[str, int, int]]:
    """Connection id, offset and amount of each shard."""
    shards = [Shard(**each["shard"]) for each in planned]
    return [(shard.conn_id, shard.offset or 0, shard.amount) for shard in shards]


def silence(*fakes: FakeDashboard) -> None:
    for fake in fakes:
        fake.fail(503, times=1000)


@pytest.mark.usefixtures("clusters")
def test_plan_divides_the_work_and_names_the_shards() -> None:
    run = Run(offset="7")
    planned = run.run("plan")
    assert parts(planned) == [("a", 7, 200), ("b", 207, 100), ("c", 307, 100)]
    assert [each["conn_id"] for each in planned] == ["a", "b", "c"]
    assert [each["shard"]["share"] for each in planned] == [0.5, 0.25, 0.25]
    names = [each["application"] for each in planned]
    assert names == [each["shard"]["application"] for each in planned]
    assert len(set(names)) == 3
    assert not set(names) & {each["application"] for each in run.run("plan")}, "the names differ in every run"


@pytest.mark.usefixtures("clusters")
def test_lazy_lists_and_numbers_from_text() -> None:
    run = Run(items=["x"], policy="any", weights={"CPU": "1"})
    task: Any = run.dag.get_task("fan_out.plan")
    task.op_kwargs = {**task.op_kwargs, "items": Lazy("x", "y", "z"), "sizes": Lazy("1", 1, 2.0)}
    assert [each["shard"]["items"] for each in run.run("plan")] == [["z"], ["x"], ["y"]]
    equal = Run(amount="4e2", offset=" 7 ", weights={}).run("plan")
    assert parts(equal) == [("a", 7, 134), ("b", 141, 133), ("c", 274, 133)]


@pytest.mark.usefixtures("clusters")
def test_the_argument_of_a_job_becomes_json_in_plan() -> None:
    run = Run(parameters=lambda shard, _: {"folder": Path("/data"), "pair": (1, 2)})
    assert run.run("plan")[0]["parameters"] == {"folder": "/data", "pair": [1, 2]}
    with pytest.raises(RayConfigError, match=r"^parameters: got a value that is not JSON \(a set has no order"):
        Run(parameters=lambda shard, _: {1, 2}).run("plan")


def notify(context: Any) -> None:
    """What an author calls for each failed task."""
    TOLD.append(context["ti"].task_id.removeprefix("fan_out."))


TOLD: list[str] = []


@pytest.mark.parametrize(
    ("failing", "told"),
    [
        (["on_cluster.submit", "merge"], ["on_cluster.submit"]),
        (["on_cluster.collect", "on_cluster.release", "on_cluster.wait", "merge"], ["on_cluster.collect"]),
        (["on_cluster.wait", "merge"], ["on_cluster.wait"]),
        (["taken_over.wait", "merge"], ["taken_over.wait"]),
        (["plan", "merge"], ["plan"]),
        # Nothing has failed, but too few clusters were available.
        (["merge"], ["merge"]),
    ],
    ids=str,
)
def test_the_author_is_told_once_for_each_cause(failing: list[str], told: list[str]) -> None:
    TOLD.clear()
    run = Run(
        collect={"path": "/x"}, release={"path": "/y"}, redistribute=True, default_args={"on_failure_callback": notify}
    )
    run.fail("on_cluster.collect", map_index=7)
    assert TOLD == ["on_cluster.collect"]
    run.xcoms.clear()
    TOLD.clear()
    for name in failing:
        run.fail(name, map_index=1 if "." in name else None)
    assert told == TOLD


def test_each_cluster_is_a_cause_of_its_own() -> None:
    TOLD.clear()
    run = Run(default_args={"on_failure_callback": notify})
    run.fail("on_cluster.submit", map_index=0)
    run.fail("on_cluster.submit", map_index=2)
    run.fail("merge")
    assert TOLD == ["on_cluster.submit", "on_cluster.submit"]


@pytest.mark.usefixtures("clusters")
def test_the_argument_of_a_job_is_its_shard_or_what_the_author_makes_of_it() -> None:
    planned = Run().run("plan")
    assert [each["parameters"] for each in planned] == [each["shard"] for each in planned]
    run = Run(parameters=lambda shard, params: [shard.conn_id, shard.amount * params["factor"]], params={"factor": 2})
    assert [each["parameters"] for each in run.run("plan")] == [["a", 400], ["b", 200], ["c", 200]]


@pytest.mark.usefixtures("clusters")
def test_plan_takes_what_templates_have_rendered_to() -> None:
    params = {"clusters": "a, c", "policy": "2", "weights": None, "items": ["x", "y", "z"], "sizes": [1, 1, 2]}
    run = Run(**{name: f"{{{{ params['{name}'] }}}}" for name in params}, params=params)
    assert [(each["conn_id"], each["shard"]["items"]) for each in run.run("plan")] == [("a", ["z"]), ("c", ["x", "y"])]


@pytest.mark.parametrize(("capacity", "amounts"), [("free", [100, 150, 150]), ("total", [200, 100, 100])])
def test_plan_divides_by_what_is_free_or_by_all_there_is(clusters: Clusters, capacity: str, amounts: list[int]) -> None:
    clusters["a"].used = {"CPU": 2.8}
    clusters["b"].used = clusters["c"].used = {"CPU": 0.2}
    assert [amount for _, _, amount in parts(Run(capacity=capacity).run("plan"))] == amounts


def test_plan_tells_which_clusters_got_no_work_and_why(clusters: Clusters) -> None:
    clusters["b"].nodes[0]["resources_total"] = {}
    silence(clusters["c"])
    run = Run(policy="any")
    assert parts(run.run("plan")) == [("a", 0, 400)]
    without_work = run.xcom("plan", "ray_without_work")
    assert without_work["idle"] == ["b"]
    assert list(without_work["unavailable"]) == ["c"]
    assert f"{clusters['c'].url}/api/version: 503" in without_work["unavailable"]["c"]


@pytest.mark.parametrize(
    ("policy", "redistribute", "silent", "planned"),
    [
        ("all", False, "c", None),
        (3, False, "c", None),
        ("2", False, "c", "ab"),
        (2, False, "bc", None),
        ("any", False, "bc", "a"),
        ("any", False, "abc", None),
        # The living do all of the work, but they cannot stand in for a number of successes.
        ("all", True, "bc", "a"),
        ("all", True, "abc", None),
        (2, True, "bc", None),
    ],
)
def test_plan_needs_as_many_clusters_as_the_policy(
    clusters: Clusters, policy: int | str, redistribute: bool, silent: str, planned: str | None
) -> None:
    silence(*(clusters[conn_id] for conn_id in silent))
    run = Run(policy=policy, redistribute=redistribute)
    if planned:
        assert [each["conn_id"] for each in run.run("plan")] == list(planned)
        return
    with pytest.raises(RayClusterUnavailable, match="503"):
        run.run("plan")
    assert not run.xcoms


def test_a_cluster_without_work_does_not_count_for_the_policy(clusters: Clusters) -> None:
    clusters["b"].nodes[0]["resources_total"] = {}
    run = Run(policy=3)
    with pytest.raises(RayConfigError) as caught:
        run.run("plan")
    expected = "'all', 'any' or a number from 1 to 2, the number of clusters that answer and get work"
    assert (caught.value.field, caught.value.got, caught.value.expected) == ("policy", "3", expected)
    assert not run.xcoms


def test_plan_refuses_one_cluster_twice_unless_it_is_allowed(clusters: Clusters) -> None:
    clusters["c"].session_name = clusters["a"].session_name
    with pytest.raises(RayConfigError, match=r"\['a', 'c'\], which lead to the same cluster \(session session_a\)"):
        Run().run("plan")
    assert len(Run(allow_same_cluster=True).run("plan")) == 3


def test_plan_refuses_one_serve_address_for_two_clusters_only_if_the_jobs_serve(
    clusters: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, "c", clusters["c"], extra={"serve_url": clusters["a"].serve_url})
    with pytest.raises(RayConfigError, match=r"\['a', 'c'\], whose Serve is expected at the same address"):
        Run(collect={"path": "/output"}).run("plan")
    assert len(Run().run("plan")) == 3


@pytest.mark.parametrize("error", [GONE, LOST])
def test_the_living_take_over_the_work_of_the_dead(clusters: Clusters, error: Exception) -> None:
    clusters["c"].default_outcome = Outcome(ends_after=None)
    run = Run(redistribute=True, parameters=lambda shard, _: shard.taken_over_from)
    run.run("plan")
    run.ended(0)
    run.ended(1)
    run.ended(2, error=error)
    RayHook("c").submit_job("sleep", submission_id="on_cluster-2")
    replanned = run.run("replan")
    # The 100 numbers of c from 300 on: two thirds for a, which has twice as many CPUs as b.
    assert parts(replanned) == [("a", 300, 67), ("b", 367, 33)]
    assert [each["parameters"] for each in replanned] == [each["shard"]["taken_over_from"] for each in replanned]
    assert {each["parameters"] for each in replanned} == {"c"}
    assert sum(each["shard"]["share"] for each in replanned) == pytest.approx(0.25)
    assert not {each["application"] for each in replanned} & {each["application"] for each in run.xcom("plan")}
    assert clusters["c"].jobs["on_cluster-2"].status == "STOPPED"


def test_the_work_of_each_dead_cluster_is_taken_over_if_its_job_cannot_be_reached(clusters: Clusters) -> None:
    run = Run(redistribute=True)
    run.run("plan")
    silence(clusters["a"])
    run.ended(0, error=GONE)
    run.ended(1, error=LOST)
    run.ended(2)
    assert parts(run.run("replan")) == [("c", 0, 200), ("c", 200, 100)]


def test_nobody_takes_over_while_the_job_of_a_dead_cluster_may_run(clusters: Clusters) -> None:
    clusters["c"].default_outcome = Outcome(ends_after=None, stop_after=None)
    run = Run(redistribute=True)
    run.run("plan")
    run.ended(0)
    run.ended(1)
    run.ended(2, error=GONE)
    RayHook("c").submit_job("sleep", submission_id="on_cluster-2")
    before = len(clusters["a"].requests)
    with pytest.raises(RayJobStopping, match="on_cluster-2"):
        run.run("replan")
    assert len(clusters["a"].requests) == before
    assert run.xcom("replan") is None


@pytest.mark.parametrize(
    "errors",
    [
        pytest.param([None, None, None], id="nobody is dead"),
        pytest.param([None, None, FAILED], id="a job that failed by itself is not repeated"),
        pytest.param([GONE, LOST, GONE], id="nobody is alive"),
        pytest.param([FAILED, FAILED, GONE], id="nobody has succeeded"),
    ],
)
def test_nothing_is_taken_over(clusters: Clusters, errors: list[Exception | None]) -> None:
    run = Run(redistribute=True)
    run.run("plan")
    for index, error in enumerate(errors):
        run.ended(index, error=error)
    before = [len(fake.requests) for fake in clusters.values()]
    assert run.run("replan") == []
    assert [len(fake.requests) for fake in clusters.values()] == before


def test_nothing_is_taken_over_or_merged_where_nothing_was_planned() -> None:
    run = Run(redistribute=True)
    assert run.run("replan") == []
    with pytest.raises(AirflowFailException, match="^Nothing was submitted; the log of the task plan says why$"):
        run.run("merge")
    assert run.xcom("merge") is None


def test_merge_returns_a_row_for_each_cluster(clusters: Clusters) -> None:
    clusters["b"].nodes[0]["resources_total"] = {}
    silence(clusters["c"])
    run = Run(policy="any", collect={"path": "/output"})
    run.run("plan")
    run.ended(0, output={"mean": 0.5})
    merged = run.run("merge")
    assert merged["a"] == {
        "share": 1.0,
        "offset": 0,
        "amount": 400,
        "status": "SUCCEEDED",
        "submission_id": "on_cluster-0",
        "seconds": 4.5,
        "output": {"mean": 0.5},
        "error": None,
        "taken_over": [],
    }
    assert {conn_id: row["status"] for conn_id, row in merged.items()} == {
        "a": "SUCCEEDED",
        "b": "NO_WORK",
        "c": "FAILED",
    }
    assert merged["c"]["error"]["task"] == "plan"


@pytest.mark.usefixtures("clusters")
def test_merge_fails_with_a_line_for_each_failed_cluster_and_pushes_the_rows() -> None:
    run = Run(policy="2")
    run.run("plan")
    run.ended(0)
    run.ended(1, error=FAILED)
    run.ended(2, error=GONE)
    with pytest.raises(AirflowFailException) as caught:
        run.run("merge")
    assert str(caught.value).splitlines() == [
        "1 of 3 clusters succeeded, 2 required (policy '2')",
        f"b: wait: {str(FAILED).splitlines()[0]}",
        "c: wait: GET http://b: no answer",
    ]
    rows = run.xcom("merge")
    assert {conn_id: row["status"] for conn_id, row in rows.items()} == {"a": "SUCCEEDED", "b": "FAILED", "c": "FAILED"}


@pytest.mark.usefixtures("clusters")
@pytest.mark.parametrize(("policy", "enough"), [("all", False), (3, False), ("2", True), (1, True), ("any", True)])
def test_the_policy_decides_whether_a_failed_cluster_fails_the_run(policy: int | str, enough: bool) -> None:
    run = Run(policy=policy)
    run.run("plan")
    run.ended(0)
    run.ended(1)
    run.ended(2, error=FAILED)
    if enough:
        assert list(run.run("merge")) == ["a", "b", "c"]
        return
    with pytest.raises(AirflowFailException, match="^2 of 3 clusters succeeded, 3 required"):
        run.run("merge")


@pytest.mark.usefixtures("clusters")
@pytest.mark.parametrize("second", [None, FAILED])
def test_work_that_was_taken_over_counts_when_all_of_it_is_done(second: Exception | None) -> None:
    run = Run(redistribute=True)
    run.run("plan")
    run.ended(0)
    run.ended(1)
    run.ended(2, error=LOST)
    run.run("replan")
    run.ended(0, group="taken_over")
    run.ended(1, group="taken_over", error=second)
    if second is None:
        run.run("merge")
    else:
        with pytest.raises(AirflowFailException, match="^2 of 3 clusters succeeded, 3 required"):
            run.run("merge")
    rows = run.xcom("merge")
    taken = [(part["from"], part["amount"], part["submission_id"]) for part in rows["a"]["taken_over"]]
    assert taken == [("c", 67, "taken_over-0")]
    assert rows["b"]["taken_over"][0]["status"] == ("SUCCEEDED" if second is None else "FAILED")
    assert rows["c"]["status"] == "FAILED"
