"""The task group that ray_fan_out makes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG, BaseOperator, TaskGroup, task_group

from airflow_provider_ray.client.errors import RayClusterUnavailable, RayConfigError, RayJobLost, RayJobStopping
from airflow_provider_ray.fan_out import CallOptions, JobOptions, ray_fan_out
from airflow_provider_ray.fan_out.faults import UnlessTold, note_fault
from airflow_provider_ray.fan_out.options import TaskOptions
from airflow_provider_ray.operators.job import RaySubmitJobOperator
from airflow_provider_ray.operators.serve import RayServeOperator

JOB: JobOptions = {"entrypoint": "python job.py"}
SERVING: dict[str, Any] = {"collect": {"path": "/output"}, "release": {"path": "/release"}}


def fan_out(dag_args: dict[str, Any] | None = None, **arguments: Any) -> DAG:
    with DAG("d", schedule=None, start_date=pendulum.datetime(2026, 1, 1), default_args=dag_args or {}) as dag:
        ray_fan_out(**{"clusters": ["c1", "c2"], "job": JOB, "amount": 10, **arguments})
    validate: Callable[[], Any] = dag.validate
    validate()
    return dag


def task_of(dag: DAG, name: str) -> Any:
    """A task of the group, with the attributes of its operator."""
    return dag.get_task(f"fan_out.{name}")


def edges(dag: DAG) -> dict[str, set[str]]:
    return {each.task_id.removeprefix("fan_out."): each.downstream_task_ids for each in dag.tasks}


def below(*names: str) -> set[str]:
    return {f"fan_out.{name}" for name in names}


def test_the_tasks_and_their_order() -> None:
    found = edges(fan_out(**SERVING))
    assert found == {
        "plan": below("on_cluster.submit", "on_cluster.collect", "on_cluster.release", "on_cluster.wait", "merge"),
        "on_cluster.submit": below("on_cluster.collect", "on_cluster.release", "on_cluster.wait"),
        # A failed task with nothing but teardowns behind it would fail the run, whatever the policy.
        "on_cluster.collect": below("on_cluster.release", "merge"),
        "on_cluster.release": below("on_cluster.wait"),
        "on_cluster.wait": below("merge"),
        "merge": set(),
    }


def test_a_job_that_does_not_serve_belongs_to_its_task_until_it_ends() -> None:
    dag = fan_out()
    assert edges(dag) == {
        "plan": below("on_cluster.submit", "on_cluster.wait", "merge"),
        "on_cluster.submit": below("on_cluster.wait", "merge"),
        "on_cluster.wait": below("merge"),
        "merge": set(),
    }
    assert task_of(dag, "on_cluster.submit").deferrable
    assert task_of(dag, "on_cluster.submit").wait_for_completion


def test_redistribution_adds_a_second_round() -> None:
    found = edges(fan_out(redistribute=True))
    assert below("replan") <= found["on_cluster.wait"]
    assert below("taken_over.submit", "taken_over.wait") <= found["replan"]
    assert found["taken_over.wait"] == below("merge")
    assert found["replan"] >= below("merge")


def test_what_follows_a_cluster_runs_whatever_came_of_it() -> None:
    dag = fan_out(redistribute=True, **SERVING)
    rules = {each.task_id.removeprefix("fan_out."): each.trigger_rule.value for each in dag.tasks}
    assert rules["merge"] == rules["replan"] == "all_done"
    assert rules["on_cluster.wait"] == rules["on_cluster.release"] == "all_done_setup_success"


def test_two_fan_outs_in_one_dag() -> None:
    with DAG("d", schedule=None, start_date=pendulum.datetime(2026, 1, 1)) as dag:
        first = ray_fan_out(clusters=["c1"], job=JOB, amount=1, group_id="first")
        ray_fan_out(clusters=["c1"], job=JOB, items=first, group_id="second")
    assert dag.get_task("first.merge").downstream_task_ids == {"second.plan"}


def test_defaults_of_the_cluster_tasks_and_those_of_the_author() -> None:
    calls: list[Any] = []
    dag = fan_out(default_args={"retries": 7, "on_failure_callback": calls.append})
    submit = task_of(dag, "on_cluster.submit")
    assert submit.retries == 7
    assert submit.map_index_template == "{{ task.conn_id }}"
    assert list(submit.on_failure_callback) == [note_fault, calls.append]
    own = task_of(fan_out(job={**JOB, "on_failure_callback": calls.append}), "on_cluster.submit")
    assert list(own.on_failure_callback) == [note_fault, calls.append]
    assert task_of(dag, "plan").retries == task_of(dag, "merge").retries == 3
    # One XCom, and not another for each connection id.
    assert task_of(dag, "merge").multiple_outputs is False


def notify(context: Any) -> None:
    """What an author calls for each failed task."""


def test_what_the_dag_says_about_retries_holds_for_all_tasks() -> None:
    minutes = timedelta(minutes=20)
    dag = fan_out({"retries": 7, "retry_delay": minutes, "map_index_template": "{{ 1 }}"}, redistribute=True, **SERVING)
    names = {"plan", "replan", "merge", "on_cluster.submit", "on_cluster.collect", "on_cluster.wait", "taken_over.wait"}
    for task in map(task_of, [dag] * len(names), names):
        assert (task.retries, task.retry_delay) == (7, minutes)
        assert task.retry_policy.evaluate(RayJobStopping.from_message("x"), 1, 7).retry_delay == minutes
    assert task_of(dag, "on_cluster.submit").map_index_template == "{{ 1 }}"
    # A call that ends a job is not worth a retry: the job ends by itself.
    assert task_of(dag, "on_cluster.release").retries == 0


def test_retries_of_a_group_around_a_fan_out() -> None:
    with DAG("d", schedule=None, default_args={"retries": 7}) as dag, TaskGroup("around") as group:
        group.default_args["retries"] = 1
        ray_fan_out(clusters=["c1"], job=JOB, amount=1, default_args={"retries": 5})
    assert dag.get_task("around.fan_out.plan").retries == dag.get_task("around.fan_out.merge").retries == 1
    assert dag.get_task("around.fan_out.on_cluster.submit").retries == 5


def test_callbacks_of_the_dag_are_called_once_for_a_cause() -> None:
    dag = fan_out({"on_failure_callback": notify}, redistribute=True, **SERVING)
    for name in ("plan", "replan", "on_cluster.submit", "taken_over.submit"):
        assert list(task_of(dag, name).on_failure_callback) == [note_fault, notify]
    for name in ("on_cluster.collect", "on_cluster.release", "on_cluster.wait", "taken_over.wait"):
        assert list(task_of(dag, name).on_failure_callback) == [note_fault, UnlessTold(notify)]
    assert list(task_of(dag, "merge").on_failure_callback) == [UnlessTold(notify)]


def test_a_callback_of_one_task_is_always_called() -> None:
    dag = fan_out({"on_failure_callback": print}, collect={"path": "/x", "on_failure_callback": [notify]})
    assert list(task_of(dag, "on_cluster.collect").on_failure_callback) == [note_fault, notify]


def test_a_fan_out_in_a_mapped_group_is_refused() -> None:
    @task_group
    def around(amount: int) -> None:
        ray_fan_out(clusters=["c1"], job=JOB, amount=amount)

    with DAG("d", schedule=None), pytest.raises(RayConfigError, match="in the mapped task group 'around'"):
        around.expand(amount=[1, 2])


def test_a_fan_out_in_groups_that_are_not_mapped() -> None:
    with DAG("d", schedule=None) as dag, TaskGroup("outer"), TaskGroup("inner"):
        ray_fan_out(clusters=["c1"], job=JOB, amount=1)
    assert dag.get_task("outer.inner.fan_out.plan")


@pytest.mark.parametrize(
    ("arguments", "again"),
    [({}, True), ({"policy": "any"}, False), ({"policy": 2}, False), ({"redistribute": True}, False)],
)
def test_an_unavailable_cluster_is_waited_for_only_where_nobody_else_will_do(
    arguments: dict[str, Any], again: bool
) -> None:
    policy = task_of(fan_out(**arguments), "on_cluster.submit").retry_policy
    for fault in (RayClusterUnavailable("GET x", "no answer"), RayJobLost.from_message("lost")):
        assert (policy.evaluate(fault, 1, 3).action.name == "RETRY") is again
    assert policy.evaluate(RayJobStopping.from_message("stopping"), 1, 3).action.name == "RETRY"


@pytest.mark.parametrize(
    ("arguments", "field", "got"),
    [
        ({"clusters": []}, "clusters", "an empty list"),
        ({"clusters": ["c1", "c1"]}, "clusters", "'c1' twice"),
        ({"clusters": "c1,c1"}, "clusters", "'c1' twice"),
        ({"clusters": "site=hpc,gpu"}, "clusters", "'gpu'"),
        ({"clusters": {"c1": 1}}, "clusters", "{'c1': 1} of type dict"),
        ({"policy": 3}, "policy", "3"),
        ({"policy": "most"}, "policy", "'most'"),
        ({"policy": 0, "clusters": "site=hpc"}, "policy", "0"),
        ({"policy": 3, "clusters": "c1, c2"}, "policy", "3"),
        ({"policy": "most", "clusters": "{{ params.clusters }}"}, "policy", "'most'"),
        ({"policy": None}, "policy", "None"),
        ({"capacity": "used"}, "capacity", "'used'"),
        ({"weights": {"CPU": -1}}, "weights['CPU']", "-1"),
        ({"weights": {"cpu": 1}}, "weights", "'cpu'"),
        ({"weights": 5}, "weights", "5"),
        ({"weights": "CPU"}, "weights", "'CPU'"),
        ({"job": {**JOB, "conn_id": "c1"}}, "job", "['conn_id']"),
        ({"collect": {"application": "a"}}, "collect", "['application']"),
        ({"release": {"task_id": "a"}}, "release", "['task_id']"),
        ({"job": {"entrypont": "true"}}, "job", "['entrypont']"),
        ({"job": {"entrypoint": "python job.py", 1: 2, "strategie": "x"}}, "job", "[1, 'strategie']"),
        ({"job": {"runtime_env": {}}}, "job", "nothing for ['entrypoint']"),
        ({"job": "python job.py"}, "job", "'python job.py' of type str"),
        ({"collect": {"pth": "/output"}}, "collect", "['pth']"),
        ({"collect": {"do_xcom_push": False}}, "collect", "['do_xcom_push']"),
        ({"collect": {}, "release": {"retrys": 1}}, "release", "['retrys']"),
        ({"release": {"path": "/release"}}, "release", "a value without collect"),
        ({"items": [1]}, "amount and items", "both"),
        ({"amount": "many"}, "amount", "'many'"),
        ({"amount": 0}, "amount", "0"),
        ({"offset": -1}, "offset", "-1"),
        ({"amount": None, "items": []}, "items", "[]"),
        ({"amount": None, "items": "abc"}, "items", "'abc'"),
        ({"amount": None, "items": [1], "sizes": ["big"]}, "sizes[0]", "'big'"),
        ({"amount": None}, "amount and items", "neither"),
    ],
)
def test_what_cannot_work_is_named_in_the_dag_file(arguments: dict[str, Any], field: str, got: str) -> None:
    with pytest.raises(RayConfigError) as caught:
        fan_out(**arguments)
    assert (caught.value.field, caught.value.got) == (field, got)


def test_a_misspelt_field_is_told_with_those_there_are() -> None:
    with pytest.raises(RayConfigError) as caught:
        fan_out(job={**JOB, "runtime_environment": {}})
    assert "'runtime_env'" in caught.value.expected
    assert "'conn_id'" not in caught.value.expected
    assert "arguments of every task such as 'retries'" in caught.value.expected


@pytest.mark.parametrize(
    ("kind", "operator", "not_the_authors"),
    [
        (
            JobOptions,
            RaySubmitJobOperator,
            # A cluster's job has one cluster to go to.
            {"conn_id", "parameters", "submission_id", "wait_for_completion", "strategy"},
        ),
        (CallOptions, RayServeOperator, {"conn_id", "application", "submission_id"}),
    ],
)
def test_the_options_are_the_operators_arguments(kind: Any, operator: Any, not_the_authors: set[str]) -> None:
    of_all = arguments_of(BaseOperator)
    assert set(TaskOptions.__optional_keys__) == of_all - {
        "task_id",
        "dag",
        "task_group",
        "default_args",
        "trigger_rule",
        "do_xcom_push",
        "multiple_outputs",
        "allow_nested_operators",
        "sla",
        "resources",
    }
    own = set().union(*(arguments_of(each) for each in operator.__mro__ if issubclass(each, BaseOperator))) - of_all
    assert (kind.__required_keys__ | kind.__optional_keys__) - of_all == own - not_the_authors


def arguments_of(operator: Any) -> set[str]:
    parameters = inspect.signature(operator.__init__).parameters.values()
    return {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}


def test_durations_may_be_timedeltas() -> None:
    minute = timedelta(minutes=1)
    dag = fan_out(
        job={**JOB, "poll_interval": minute},
        collect={"timeout": minute, "poll_interval": minute},
        release={"request_timeout": minute},
    )
    assert task_of(dag, "on_cluster.submit").poll_interval == 60
    assert task_of(dag, "on_cluster.collect").timeout == 60
    assert task_of(dag, "on_cluster.collect").poll_interval == 60
    assert task_of(dag, "on_cluster.release").request_timeout == 60
    with pytest.raises(RayConfigError, match="timeout: got 0; expected a number of seconds above 0, or a timedelta"):
        fan_out(collect={"timeout": 0})


@pytest.mark.parametrize("name", ["clusters", "policy", "weights", "amount"])
def test_templates_are_left_for_the_run(name: str) -> None:
    template = f"{{{{ params.{name} }}}}"
    assert task_of(fan_out({}, **{name: template}), "plan").op_kwargs[name] == template
