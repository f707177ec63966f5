"""A job that has several clusters to run on, while one of them dies, comes back, or was only slow."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException, TaskDeferralError

from airflow_provider_ray.client import errors, pacing
from airflow_provider_ray.client.jobs import submission
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.jobs import attempt
from airflow_provider_ray.jobs.stopping import StoppableJob
from airflow_provider_ray.operators.job import RaySubmitJobOperator
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.conftest import Attempts, TaskLog
from tests.unit.deferral import run_deferred

Clusters = dict[str, FakeDashboard]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferrable"])
AT_WORK = Outcome(ends_after=None, stop_after=0.2)


class Died(BaseException):
    """The process of the task, at this line."""


def operator(**arguments: Any) -> RaySubmitJobOperator:
    given = {
        "task_id": "submit",
        "conn_id": ["a", "b"],
        "entrypoint": "true",
        "poll_interval": 0.1,
        "deferrable": False,
    }
    return RaySubmitJobOperator(**{**given, **arguments})


def run(attempts: Attempts, try_number: int = 1, max_tries: int = 5, **arguments: Any) -> Any:
    """An attempt from its beginning to its end, or its deferrals'."""
    task, context = operator(**arguments), attempts.context(try_number=try_number, max_tries=max_tries)
    return run_deferred(task, context) if task.deferrable and task.wait_for_completion else task.execute(context)


def die(cluster: FakeDashboard, kind: Any = "close") -> None:
    cluster.fail(kind, times=10**6)


def come_back(cluster: FakeDashboard) -> None:
    cluster.faults.clear()


def states(cluster: FakeDashboard) -> list[str]:
    return [job.status for job in cluster.jobs.values()]


def lose_sight(attempts: Attempts, clusters: Clusters, **arguments: Any) -> None:
    """A first attempt whose job runs on cluster a, which then dies."""
    clusters["a"].default_outcome = AT_WORK
    with meanwhile(lambda: clusters["a"].jobs, lambda: die(clusters["a"])), pytest.raises(errors.RayClusterUnavailable):
        run(attempts, **arguments)


@contextmanager
def meanwhile(condition: Callable[[], Any], action: Callable[[], Any]) -> Iterator[None]:
    """Do something as soon as a condition holds, which has to be before the block ends."""
    over, done = threading.Event(), threading.Event()

    def work() -> None:
        while not condition() and not over.is_set():
            time.sleep(0.02)
        if not over.is_set():
            action()
            done.set()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()
    assert done.is_set()


@MODES
def test_a_cluster_that_is_down_gets_no_job(clusters: Clusters, attempts: Attempts, deferrable: bool) -> None:
    die(clusters["a"])
    result = run(attempts, deferrable=deferrable)
    assert result == {"conn_id": "b", "submission_id": next(iter(clusters["b"].jobs))}
    assert not clusters["a"].jobs


def test_a_single_cluster_is_asked_nothing_more(clusters: Clusters, attempts: Attempts) -> None:
    run(attempts, conn_id=["a"])
    (job,) = clusters["a"].jobs
    paths = [each.path for each in clusters["a"].requests]
    assert paths[:3] == ["/api/v0/jobs", "/api/version", "/api/jobs/"]
    assert set(paths[3:]) == {f"/api/jobs/{job}", "/api/v0/logs/file"}


def test_an_error_before_the_submission_names_what_is_wrong(clusters: Clusters, attempts: Attempts) -> None:
    for arguments, message in (
        ({"conn_id": []}, "conn_id: got an empty list"),
        ({"conn_id": ["a", "a"]}, "conn_id: got 'a' twice"),
        ({"strategy": "best"}, "strategy: got 'best'"),
        ({"room_timeout": 0}, "room_timeout: got 0"),
    ):
        with pytest.raises(errors.RayConfigError, match=message):
            run(attempts, **arguments)
    assert not any(cluster.requests for cluster in clusters.values())


@MODES
def test_the_retry_goes_on_elsewhere_when_the_cluster_has_died(
    clusters: Clusters, attempts: Attempts, deferrable: bool, task_log: TaskLog
) -> None:
    lose_sight(attempts, clusters, deferrable=deferrable)
    result = run(attempts, 2, deferrable=deferrable)
    assert result == {"conn_id": "b", "submission_id": next(iter(clusters["b"].jobs))}
    lost = next(iter(clusters["a"].jobs))
    (warning,) = [line for line in task_log.lines if "may still be running" in line]
    assert warning.startswith(f"Ray job {lost} on a could not be stopped and may still be running: ")


@MODES
def test_the_job_that_was_left_behind_is_stopped_when_its_cluster_is_back(
    clusters: Clusters, attempts: Attempts, deferrable: bool
) -> None:
    lose_sight(attempts, clusters, deferrable=deferrable)
    clusters["b"].default_outcome = Outcome(ends_after=1.5)
    with meanwhile(lambda: clusters["b"].jobs, lambda: come_back(clusters["a"])):
        result = run(attempts, 2, deferrable=deferrable)
    assert result["conn_id"] == "b"
    assert states(clusters["a"]) == ["STOPPED"]


@MODES
def test_a_cluster_that_is_back_with_the_job_goes_on_with_it(
    clusters: Clusters, attempts: Attempts, deferrable: bool
) -> None:
    lose_sight(attempts, clusters, deferrable=deferrable)
    come_back(clusters["a"])
    next(iter(clusters["a"].jobs.values())).outcome = Outcome(ends_after=0)
    result = run(attempts, 2, deferrable=deferrable)
    assert result == {"conn_id": "a", "submission_id": next(iter(clusters["a"].jobs))}
    assert not clusters["b"].jobs


def test_a_cluster_that_is_back_without_the_job_gets_no_other(clusters: Clusters, attempts: Attempts) -> None:
    lose_sight(attempts, clusters)
    come_back(clusters["a"])
    clusters["a"].jobs.clear()
    assert run(attempts, 2)["conn_id"] == "b"
    assert not clusters["a"].jobs


@MODES
def test_user_code_that_failed_stays_where_it_is(clusters: Clusters, attempts: Attempts, deferrable: bool) -> None:
    clusters["a"].default_outcome = Outcome(status="FAILED", exit_code=1)
    for try_number in (1, 2):
        with pytest.raises(errors.RayJobFailed):
            run(attempts, try_number, deferrable=deferrable)
    assert states(clusters["a"]) == ["FAILED", "FAILED"]
    assert not clusters["b"].jobs


@MODES
def test_a_lost_job_is_told_to_stop_and_the_retry_goes_elsewhere(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    lose_job(attempts, clusters, monkeypatch, deferrable)
    assert run(attempts, 2, deferrable=deferrable)["conn_id"] == "b"
    (lost,) = clusters["a"].jobs
    # When it was given up, by the next attempt, and at the end of the task.
    assert len(clusters["a"].asked("POST", f"/api/jobs/{lost}/stop")) == 3


def lose_job(attempts: Attempts, clusters: Clusters, monkeypatch: pytest.MonkeyPatch, deferrable: bool) -> None:
    """A first attempt on cluster a that loses the node of its driver; then the node is there again."""
    monkeypatch.setattr(pacing, "NODES_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(pacing, "LOST_STOP_SECONDS", 0.2)
    clusters["a"].default_outcome = Outcome(ends_after=None, stop_after=None)
    with meanwhile(lambda: clusters["a"].jobs, lambda: bury(clusters["a"])), pytest.raises(errors.RayJobLost):
        run(attempts, deferrable=deferrable)
    clusters["a"].nodes[0]["state"] = "ALIVE"


def bury(cluster: FakeDashboard) -> None:
    cluster.nodes[0]["state"] = "DEAD"


@MODES
def test_a_lost_job_that_has_succeeded_meanwhile_is_the_result(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    lose_job(attempts, clusters, monkeypatch, deferrable)
    (lost,) = clusters["a"].jobs
    clusters["a"].jobs[lost].outcome = Outcome()
    assert run(attempts, 2, deferrable=deferrable) == {"conn_id": "a", "submission_id": lost}
    assert not clusters["b"].jobs


def test_a_lost_job_that_succeeds_while_it_is_told_to_stop_is_the_result(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_job(attempts, clusters, monkeypatch, deferrable=False)
    monkeypatch.setattr(pacing, "LOST_STOP_SECONDS", 3.0)
    (lost,) = clusters["a"].jobs
    asked = len(clusters["a"].asked("POST", f"/api/jobs/{lost}/stop"))

    def succeed() -> None:
        clusters["a"].jobs[lost].outcome = Outcome()

    with meanwhile(lambda: len(clusters["a"].asked("POST", f"/api/jobs/{lost}/stop")) > asked, succeed):
        assert run(attempts, 2)["submission_id"] == lost
    assert not clusters["b"].jobs


def test_a_job_that_succeeded_behind_the_fault_is_the_result_and_the_other_one_is_stopped(
    clusters: Clusters, attempts: Attempts
) -> None:
    lose_sight(attempts, clusters)
    clusters["b"].default_outcome = AT_WORK
    run(attempts, 2, wait_for_completion=False)
    come_back(clusters["a"])
    (first,) = clusters["a"].jobs
    clusters["a"].jobs[first].outcome = Outcome()
    assert run(attempts, 3) == {"conn_id": "a", "submission_id": first}
    assert states(clusters["b"]) == ["STOPPED"]


def test_an_attempt_that_finds_both_jobs_active_keeps_the_newer_and_stops_the_older(
    clusters: Clusters, attempts: Attempts
) -> None:
    lose_sight(attempts, clusters)
    clusters["b"].default_outcome = Outcome(ends_after=1.5)
    run(attempts, 2, wait_for_completion=False)
    come_back(clusters["a"])
    assert run(attempts, 3)["conn_id"] == "b"
    assert states(clusters["a"]) == ["STOPPED"]
    assert len(clusters["b"].jobs) == 1


@MODES
@pytest.mark.parametrize("is_back", [True, False], ids=["back", "still away"])
def test_a_task_that_died_between_remembering_and_submitting_knows_both_jobs(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, deferrable: bool, is_back: bool
) -> None:
    lose_sight(attempts, clusters)
    owner, method = (RaySubmitJobOperator, "defer") if deferrable else (attempt.Attempt, "submit")
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, dies)
        with pytest.raises(Died):
            run(attempts, 2, deferrable=deferrable)
    remembered = [attempts.store["ray_job"], *attempts.store["ray_job"]["left_behind"]]
    assert [job["conn_id"] for job in remembered] == ["b", "a"]
    assert not clusters["b"].jobs
    if is_back:
        come_back(clusters["a"])
        next(iter(clusters["a"].jobs.values())).outcome = Outcome(ends_after=0)
    run(attempts, 3, deferrable=deferrable)
    submitted = [*clusters["a"].jobs, *clusters["b"].jobs]
    assert submitted == [job["submission_id"] for job in reversed(remembered)][: 1 if is_back else 2]


def dies(*_: Any, **__: Any) -> None:
    raise Died


def test_a_task_that_died_after_submitting_elsewhere_goes_on_with_that_job(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_sight(attempts, clusters)
    clusters["b"].default_outcome = Outcome(ends_after=1.5)
    with monkeypatch.context() as patch:
        patch.setattr(RaySubmitJobOperator, "_wait", dies)
        with pytest.raises(Died):
            run(attempts, 2)
    come_back(clusters["a"])
    assert run(attempts, 3) == {"conn_id": "b", "submission_id": next(iter(clusters["b"].jobs))}
    assert len(clusters["b"].jobs) == 1
    assert states(clusters["a"]) == ["STOPPED"]


def test_a_submission_that_arrives_late_is_stopped_at_the_end_of_the_task(
    clusters: Clusters, attempts: Attempts
) -> None:
    """The head of a cluster may hold a request for longer than anybody waits for the answer."""
    clusters["a"].fail("close", method="POST", path="/api/jobs/", times=10)
    with pytest.raises(errors.RayClusterUnavailable):
        run(attempts)
    come_back(clusters["a"])
    remembered = attempts.store["ray_job"]
    clusters["a"].default_outcome = AT_WORK
    clusters["b"].default_outcome = Outcome(ends_after=1.5)

    def arrive() -> None:
        metadata = {submission.NONCE_KEY: remembered["nonce"]}
        RayHook("a").submit_job("true", submission_id=remembered["submission_id"], metadata=metadata)

    with meanwhile(lambda: clusters["b"].jobs, arrive):
        assert run(attempts, 2)["conn_id"] == "b"
    assert states(clusters["a"]) == ["STOPPED"]


def test_a_cluster_that_takes_no_uploads_is_left_after_one_attempt(
    clusters: Clusters, attempts: Attempts, tmp_path: Any
) -> None:
    clusters["a"].fail(503, path="/api/packages", times=100)
    runtime_env = {"working_dir": str(tmp_path)}
    with pytest.raises(errors.RayClusterUnavailable):
        run(attempts, runtime_env=runtime_env)
    # Nothing can have been submitted.
    assert attempts.store["ray_job"] == {"left_behind": [], "failed_on": ["a"]}
    assert run(attempts, 2, runtime_env=runtime_env)["conn_id"] == "b"


def test_three_clusters_are_tried_one_after_the_other(clusters: Clusters, attempts: Attempts) -> None:
    """All of them look healthy."""
    for conn_id in ("a", "b"):
        clusters[conn_id].fail(503, method="POST", path="/api/jobs/", times=100)
    for try_number in (1, 2):
        with pytest.raises(errors.RayClusterUnavailable):
            run(attempts, try_number, conn_id=["a", "b", "c"])
    assert attempts.store["ray_job"]["failed_on"] == ["a", "b"]
    assert run(attempts, 3, conn_id=["a", "b", "c"])["conn_id"] == "c"
    assert not clusters["a"].jobs
    assert not clusters["b"].jobs


def test_the_cluster_that_failed_gets_the_job_back_under_its_id_when_no_other_is_healthy(
    clusters: Clusters, attempts: Attempts
) -> None:
    die(clusters["b"])
    clusters["a"].fail(503, method="POST", path="/api/jobs/", times=100)
    with pytest.raises(errors.RayClusterUnavailable):
        run(attempts)
    come_back(clusters["a"])
    remembered = attempts.store["ray_job"]["submission_id"]
    assert run(attempts, 2) == {"conn_id": "a", "submission_id": remembered}


@pytest.mark.parametrize(("last_try", "told"), [(False, False), (True, True)])
def test_the_last_attempt_tries_to_stop_what_was_left_behind(
    clusters: Clusters, attempts: Attempts, last_try: bool, told: bool
) -> None:
    lose_sight(attempts, clusters)
    clusters["b"].default_outcome = Outcome(status="FAILED", exit_code=1, ends_after=1.5)
    with meanwhile(lambda: clusters["b"].jobs, lambda: come_back(clusters["a"])), pytest.raises(errors.RayJobFailed):
        run(attempts, 2 if not last_try else 6)
    assert states(clusters["a"]) == (["STOPPED"] if told else ["RUNNING"])


def test_a_task_that_is_skipped_has_come_to_its_end(clusters: Clusters, attempts: Attempts) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    lose_sight(attempts, clusters)
    clusters["b"].default_outcome = Outcome(status="FAILED", exit_code=99, ends_after=1.5)
    with meanwhile(lambda: clusters["b"].jobs, lambda: come_back(clusters["a"])), pytest.raises(AirflowSkipException):
        run(attempts, 2, skip_on_exit_code=99)
    assert states(clusters["a"]) == ["STOPPED"]


def test_no_healthy_cluster_leaves_the_job_to_the_next_attempt(clusters: Clusters, attempts: Attempts) -> None:
    lose_sight(attempts, clusters)
    die(clusters["b"])
    before = attempts.store["ray_job"]
    with pytest.raises(errors.RayClusterUnavailable, match="None of the clusters is healthy: 'a': .*; 'b': "):
        run(attempts, 2)
    assert attempts.store["ray_job"] == before


def test_refused_credentials_are_no_reason_to_leave_a_job_behind(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "AUTH_BUDGET_SECONDS", 0.5)
    clusters["a"].default_outcome = AT_WORK
    run(attempts, wait_for_completion=False)
    clusters["a"].fail(403, times=1000)
    with pytest.raises(errors.RayAuthError):
        run(attempts, 2)
    assert not clusters["b"].jobs


@MODES
def test_a_cleared_task_stops_the_jobs_on_both_clusters(
    clusters: Clusters, attempts: Attempts, deferrable: bool
) -> None:
    lose_sight(attempts, clusters)
    clusters["b"].default_outcome = AT_WORK
    run(attempts, 2, wait_for_completion=False)
    come_back(clusters["a"])
    clusters["a"].default_outcome = clusters["b"].default_outcome = Outcome()
    result = run(attempts, 3, max_tries=8, deferrable=deferrable)
    assert states(clusters["b"]) == ["STOPPED"]
    # The failure is forgotten with the clear, so the first in the list has the job.
    assert states(clusters["a"]) == ["STOPPED", "SUCCEEDED"]
    assert result["submission_id"] == list(clusters["a"].jobs)[1]


def test_a_cleared_task_submits_nothing_anywhere_while_a_job_of_it_lives(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "STOP_CONFIRM_SECONDS", 0.5)
    lose_sight(attempts, clusters)
    run(attempts, 2)
    come_back(clusters["a"])
    (job,) = clusters["a"].jobs.values()
    job.outcome = Outcome(ends_after=None, stop_after=None)
    with pytest.raises(errors.RayJobStopping, match="on 'a' has not stopped yet after a stop request"):
        run(attempts, 3, max_tries=8)
    assert (len(clusters["a"].jobs), len(clusters["b"].jobs)) == (1, 1)
    job.outcome, clusters["a"].default_outcome = Outcome(status="FAILED"), Outcome()
    assert run(attempts, 4, max_tries=8)["conn_id"] == "a"


def test_a_cleared_task_goes_elsewhere_when_the_cluster_of_its_job_is_away(
    clusters: Clusters, attempts: Attempts
) -> None:
    lose_sight(attempts, clusters)
    assert run(attempts, 2, max_tries=6)["conn_id"] == "b"


def test_a_task_whose_only_cluster_is_away_goes_nowhere(clusters: Clusters, attempts: Attempts) -> None:
    lose_sight(attempts, clusters, conn_id="a")
    with pytest.raises(errors.RayClusterUnavailable):
        run(attempts, 2, conn_id="a")
    come_back(clusters["a"])
    next(iter(clusters["a"].jobs.values())).outcome = Outcome(ends_after=0)
    assert run(attempts, 3, conn_id="a")["submission_id"] == next(iter(clusters["a"].jobs))


def test_a_kill_stops_the_job_where_it_is_and_the_one_that_was_left_behind(
    clusters: Clusters, attempts: Attempts
) -> None:
    lose_sight(attempts, clusters)
    clusters["b"].default_outcome = AT_WORK
    task, ends = operator(), []

    def work() -> None:
        try:
            task.execute(attempts.context(try_number=2, max_tries=5))
        except errors.RayJobInterrupted as error:
            ends.append(error)

    def kill() -> None:
        come_back(clusters["a"])
        task.on_kill()

    with meanwhile(lambda: clusters["b"].jobs, kill):
        work()
    assert states(clusters["a"]) == states(clusters["b"]) == ["STOPPED"]
    assert len(ends) == 1


def test_a_kill_waits_for_no_cluster_that_hangs(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, task_log: TaskLog
) -> None:
    monkeypatch.setattr(pacing, "TASK_KILL_SECONDS", 1.0)
    die(clusters["a"], "hang")
    task = operator()
    killed = task._begin(attempts.context())
    killed.job, killed.left_behind = (
        StoppableJob(RayHook("b"), "here", "n1"),
        [StoppableJob(RayHook("a"), "there", "n2")],
    )
    started = time.monotonic()
    task.on_kill()
    assert time.monotonic() - started < 3
    assert sorted(line.split(": ")[0] for line in task_log.lines) == [
        "Asked Ray job here to stop",
        "Ray job there on a could not be stopped and may still be running",
    ]


def test_the_trigger_of_a_killed_task_stops_what_was_left_behind(clusters: Clusters, attempts: Attempts) -> None:
    from airflow.sdk.exceptions import TaskDeferred

    lose_sight(attempts, clusters)
    clusters["b"].default_outcome = AT_WORK
    with pytest.raises(TaskDeferred) as deferred:
        operator(deferrable=True).execute(attempts.context(try_number=2, max_tries=5))
    come_back(clusters["a"])
    trigger = deferred.value.trigger
    trigger.task_instance = None
    asyncio.run(trigger.on_kill())
    assert states(clusters["a"]) == ["STOPPED"]


def test_the_last_attempt_stops_all_jobs_of_a_trigger_that_failed(clusters: Clusters, attempts: Attempts) -> None:
    lose_sight(attempts, clusters)
    clusters["b"].default_outcome = AT_WORK
    run(attempts, 2, wait_for_completion=False)
    come_back(clusters["a"])
    with pytest.raises(TaskDeferralError):
        operator(deferrable=True).resume_execution(
            "__fail__", {"error": "no such trigger"}, attempts.context(try_number=2, max_tries=1)
        )
    assert states(clusters["a"]) == states(clusters["b"]) == ["STOPPED"]


def test_without_durable_each_attempt_chooses_by_health_alone(clusters: Clusters, attempts: Attempts) -> None:
    clusters["a"].fail(503, method="POST", path="/api/jobs/", times=100)
    for try_number in (1, 2):
        with pytest.raises(errors.RayClusterUnavailable):
            run(attempts, try_number, durable=False)
    die(clusters["a"])
    assert run(attempts, 3, durable=False)["conn_id"] == "b"
    assert attempts.store == {}


def test_the_connection_of_a_job_that_was_left_behind_may_be_deleted(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    lose_sight(attempts, clusters)
    monkeypatch.delenv("AIRFLOW_CONN_A")
    assert run(attempts, 2, conn_id=["b", "c"])["conn_id"] == "b"
    assert "out of reach" in caplog.text


def test_a_job_is_not_forgotten_when_its_connection_cannot_be_looked_up(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secrets backend that fails looks to Airflow as if there were no such connection."""
    lose_sight(attempts, clusters)
    before = attempts.store["ray_job"]
    with monkeypatch.context() as patch, pytest.raises(AirflowNotFoundException):
        patch.delenv("AIRFLOW_CONN_A")
        run(attempts, 2)
    assert attempts.store["ray_job"] == before
    assert not clusters["b"].jobs


def test_the_last_attempt_stops_what_it_can_reach(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_sight(attempts, clusters)
    clusters["b"].default_outcome = AT_WORK
    run(attempts, 2, wait_for_completion=False)
    monkeypatch.delenv("AIRFLOW_CONN_A")
    with pytest.raises(AirflowNotFoundException):
        run(attempts, 6)
    assert states(clusters["b"]) == ["STOPPED"]


@MODES
def test_tasks_that_follow_learn_where_the_job_is_before_it_ends(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    lose_sight(attempts, clusters)
    monkeypatch.setattr(RaySubmitJobOperator, "defer" if deferrable else "_wait", dies)
    context = attempts.context(try_number=2, max_tries=5)
    with pytest.raises(Died):
        operator(deferrable=deferrable).execute(context)
    job = attempts.store["ray_job"]["submission_id"]
    assert context["ti"].xcoms == {
        "conn_id": "b",
        "submission_id": job,
        "_link_RayJobLink": f"{clusters['b'].url}/#/jobs/{job}",
        **({"ray_log_position": {"submission_id": None, "bytes": 0}} if deferrable else {}),
    }


def test_a_list_is_a_template_and_can_be_mapped(clusters: Clusters, attempts: Attempts) -> None:
    from airflow.sdk import DAG

    with DAG("d", schedule=None):
        task = operator(conn_id=["{{ params.first }}", "b"])
    context = attempts.context()
    context["params"] = {"first": "c"}
    task.render_template_fields(context)
    assert task.execute(context)["conn_id"] == "c"
