"""What a task does about active jobs that it does not remember: the clusters are the memory of last resort."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferralError

from airflow_provider_ray.client import errors, pacing
from airflow_provider_ray.client.jobs.submission import INSTALLATION_KEY, NONCE_KEY
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.jobs import memory
from airflow_provider_ray.operators.job import RaySubmitJobOperator
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.conftest import Attempts, TaskInstance, TaskLog
from tests.unit.deferral import run_deferred

Clusters = dict[str, FakeDashboard]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferrable"])
AT_WORK = Outcome(ends_after=None, stop_after=0.2)


class Died(BaseException):
    """The process of the task, at this line."""


def operator(**arguments: Any) -> RaySubmitJobOperator:
    given = {"task_id": "submit", "conn_id": "a", "entrypoint": "true", "poll_interval": 0.1, "deferrable": False}
    return RaySubmitJobOperator(**{**given, **arguments})


def run(attempts: Attempts, try_number: int = 1, max_tries: int = 5, **arguments: Any) -> Any:
    task, context = operator(**arguments), attempts.context(try_number=try_number, max_tries=max_tries)
    return run_deferred(task, context) if task.deferrable else task.execute(context)


def leave_active(attempts: Attempts, cluster: FakeDashboard, monkeypatch: pytest.MonkeyPatch, **ti: Any) -> str:
    """An attempt that dies while its job is at work; returns the id of the job."""

    def dies(*_: Any, **__: Any) -> None:
        raise Died

    cluster.default_outcome = AT_WORK
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(RaySubmitJobOperator, "_wait", dies)
        operator().execute(attempts.context(**{"max_tries": 5, **ti}))
    cluster.default_outcome = Outcome()
    return next(reversed(cluster.jobs))


def states(cluster: FakeDashboard) -> list[str]:
    return [job.status for job in cluster.jobs.values()]


@MODES
def test_a_retry_whose_memory_was_wiped_resumes_the_job(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    job = leave_active(attempts, clusters["a"], monkeypatch)
    attempts.store.clear()
    clusters["a"].jobs[job].outcome = Outcome(ends_after=4.0)
    assert run(attempts, 2, deferrable=deferrable)["submission_id"] == job
    assert attempts.store["ray_job"]["submission_id"] == job
    assert states(clusters["a"]) == ["SUCCEEDED"]


@MODES
def test_a_clear_that_also_forgets_the_job_stops_it(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    job = leave_active(attempts, clusters["a"], monkeypatch)
    attempts.store.clear()
    assert run(attempts, 2, max_tries=7, deferrable=deferrable)["submission_id"] != job
    assert states(clusters["a"]) == ["STOPPED", "SUCCEEDED"]


@MODES
def test_a_task_instance_that_was_made_anew_stops_the_job_of_the_old_one(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    leave_active(attempts, clusters["a"], monkeypatch)
    run(Attempts(), deferrable=deferrable)
    assert states(clusters["a"]) == ["STOPPED", "SUCCEEDED"]


def test_a_job_that_does_not_stop_lets_nothing_be_submitted(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "STOP_CONFIRM_SECONDS", 0.5)
    job = leave_active(attempts, clusters["a"], monkeypatch)
    clusters["a"].jobs[job].outcome = Outcome(ends_after=None, stop_after=None)
    with pytest.raises(errors.RayJobStopping, match=f"'{job}' on 'a' has not stopped yet"):
        run(Attempts())
    assert len(clusters["a"].jobs) == 1


@pytest.mark.parametrize("wiped", [False, True], ids=["remembered", "found"])
def test_a_stop_that_is_rejected_for_a_moment_is_sat_out(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, wiped: bool
) -> None:
    job = leave_active(attempts, clusters["a"], monkeypatch)
    if wiped:
        attempts.store.clear()
    clusters["a"].fail(403, method="POST", path=f"/api/jobs/{job}/stop", times=2)
    run(attempts, 2, max_tries=7)
    assert states(clusters["a"]) == ["STOPPED", "SUCCEEDED"]


def test_a_kill_asks_airflow_for_nothing(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = leave_active(attempts, clusters["a"], monkeypatch)
    attempts.store.clear()
    task = operator()

    def is_killed(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(RayHook, "get_connection", None)
        task.on_kill()
        raise Died

    monkeypatch.setattr(RaySubmitJobOperator, "_wait", is_killed)
    with pytest.raises(Died):
        task.execute(attempts.context(try_number=2, max_tries=5))
    assert clusters["a"].jobs[job].status == "STOPPED"


@MODES
def test_without_durable_the_job_of_the_earlier_attempt_is_ended_first(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    job = leave_active(attempts, clusters["a"], monkeypatch)
    attempts.store.clear()
    assert run(attempts, 2, durable=False, deferrable=deferrable)["submission_id"] != job
    assert states(clusters["a"]) == ["STOPPED", "SUCCEEDED"]


@pytest.mark.parametrize(
    "other", [{"airflow_map_index": "4"}, {"airflow_run_id": "other"}, {INSTALLATION_KEY: "staging.example"}], ids=str
)
def test_jobs_of_other_tasks_are_left_alone(clusters: Clusters, attempts: Attempts, other: dict[str, str]) -> None:
    clusters["a"].default_outcome = AT_WORK
    stamps = memory.stamps(TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, -1)
    metadata = {**stamps, **other, NONCE_KEY: "n1"}
    RayHook("a").submit_job("true", submission_id="of-another", metadata=metadata)
    clusters["a"].default_outcome = Outcome()
    run(attempts)
    run(attempts, 2, max_tries=7)
    assert states(clusters["a"]) == ["RUNNING", "SUCCEEDED", "SUCCEEDED"]


def test_a_job_that_is_on_one_of_several_clusters_is_found(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = leave_active(attempts, clusters["a"], monkeypatch)
    attempts.store.clear()
    clusters["a"].jobs[job].outcome = Outcome(ends_after=4.0)
    assert run(attempts, 2, conn_id=["b", "a"]) == {"conn_id": "a", "submission_id": job}
    assert not clusters["b"].jobs


def test_a_retry_that_knows_nothing_does_not_submit_blindly(clusters: Clusters, attempts: Attempts) -> None:
    clusters["a"].fail(503, path="/api/v0/jobs", times=10**6)
    with pytest.raises(errors.RayClusterUnavailable, match="/api/v0/jobs"):
        run(attempts, 2)
    assert not clusters["a"].jobs


def test_a_first_attempt_goes_on_without_the_search(clusters: Clusters, attempts: Attempts, task_log: TaskLog) -> None:
    clusters["a"].fail(503, path="/api/v0/jobs", times=10**6)
    run(attempts)
    assert any(line.startswith("Cannot search a for active jobs of this task: ") for line in task_log.lines)
    assert states(clusters["a"]) == ["SUCCEEDED"]


def test_a_first_attempt_prefers_its_cluster_even_if_that_cannot_be_searched(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "FIRST_SEARCH_SECONDS", 0.5)
    clusters["a"].fail("hang", path="/api/v0/jobs", times=10**6)
    assert run(attempts, conn_id=["a", "b"])["conn_id"] == "a"


def test_credentials_that_are_rejected_for_a_moment_do_not_hide_a_job(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job on the first cluster is running, and nobody remembers it."""
    job = leave_active(attempts, clusters["a"], monkeypatch)
    attempts.store.clear()
    clusters["a"].jobs[job].outcome = Outcome(ends_after=5.0)
    clusters["a"].fail(403, times=4)
    assert run(attempts, 2, conn_id=["a", "b"]) == {"conn_id": "a", "submission_id": job}
    assert not clusters["b"].jobs


def test_a_proxy_that_forbids_the_state_api_hides_no_job(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = leave_active(attempts, clusters["a"], monkeypatch)
    attempts.store.clear()
    clusters["a"].jobs[job].outcome = Outcome(ends_after=4.0)
    clusters["a"].fail(403, path="/api/v0/jobs", times=10**6)
    assert run(attempts, 2)["submission_id"] == job


@MODES
def test_a_cleared_task_uses_the_id_of_a_submission_that_may_still_arrive(
    clusters: Clusters, attempts: Attempts, deferrable: bool
) -> None:
    """Ray takes an id once, so only one of the two can run."""
    clusters["a"].fail("close", method="POST", path="/api/jobs/", times=10**6)
    with pytest.raises(errors.RayClusterUnavailable):
        run(attempts)
    clusters["a"].faults.clear()
    remembered = attempts.store["ray_job"]
    assert run(attempts, 2, max_tries=7, deferrable=deferrable)["submission_id"] == remembered["submission_id"]
    assert attempts.store["ray_job"]["max_tries"] == 7
    # The trigger of the old attempt may still be about to stop its own job.
    assert attempts.store["ray_job"]["nonce"] != remembered["nonce"]


@MODES
def test_a_submission_that_arrives_just_before_the_one_that_takes_its_id_is_stopped(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    clusters["a"].fail("close", method="POST", path="/api/jobs/", times=10**6)
    with pytest.raises(errors.RayClusterUnavailable):
        run(attempts)
    clusters["a"].faults.clear()
    late = attempts.store["ray_job"]
    stamps = memory.stamps(TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, -1)
    metadata = {**stamps, NONCE_KEY: late["nonce"], "airflow_try_number": "1", "airflow_max_tries": "5"}
    upload = RaySubmitJobOperator._upload

    def overtaken(*arguments: Any) -> Any:
        clusters["a"].outcomes[late["submission_id"]] = AT_WORK
        RayHook("a").submit_job("true", submission_id=late["submission_id"], metadata=metadata)
        return upload(*arguments)

    with monkeypatch.context() as patch, pytest.raises(errors.RayJobStopping, match="has arrived late"):
        patch.setattr(RaySubmitJobOperator, "_upload", overtaken)
        run(attempts, 2, max_tries=7, deferrable=deferrable)
    assert run(attempts, 3, max_tries=7, deferrable=deferrable)["submission_id"] != late["submission_id"]
    assert states(clusters["a"]) == ["STOPPED", "SUCCEEDED"]


def test_a_submission_that_arrives_when_nobody_remembers_it_is_stopped_at_the_end(
    clusters: Clusters, attempts: Attempts
) -> None:
    """The store is wiped while the head of the cluster still holds the request."""
    clusters["a"].fail("close", method="POST", path="/api/jobs/", times=10**6)
    with pytest.raises(errors.RayClusterUnavailable):
        run(attempts)
    clusters["a"].faults.clear()
    late = attempts.store.pop("ray_job")
    stamps = memory.stamps(TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, -1)

    def arrive() -> None:
        while not clusters["a"].jobs:
            pass
        clusters["a"].outcomes[late["submission_id"]] = AT_WORK
        metadata = {**stamps, NONCE_KEY: late["nonce"]}
        RayHook("a").submit_job("true", submission_id=late["submission_id"], metadata=metadata)

    clusters["a"].default_outcome = Outcome(ends_after=2.0)
    arrival = threading.Thread(target=arrive)
    arrival.start()
    result = run(attempts, 2)
    arrival.join()
    assert {name: job.status for name, job in clusters["a"].jobs.items()} == {
        result["submission_id"]: "SUCCEEDED",
        late["submission_id"]: "STOPPED",
    }


def same_cluster(clusters: Clusters) -> None:
    """Let the connections a and b lead to one cluster."""
    clusters["b"].session_name = clusters["a"].session_name
    clusters["b"].jobs = clusters["a"].jobs


@pytest.mark.parametrize("outcome", [Outcome(ends_after=4.0), Outcome()], ids=["active", "has succeeded"])
def test_a_second_connection_to_the_cluster_of_the_job_finds_it(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, outcome: Outcome
) -> None:
    same_cluster(clusters)
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(RaySubmitJobOperator, "_wait", lambda *_: (_ for _ in ()).throw(Died))
        clusters["a"].default_outcome = AT_WORK
        run(attempts, conn_id=["a", "b"])
    (job,) = clusters["a"].jobs
    clusters["a"].jobs[job].outcome = outcome
    clusters["a"].fail("close", times=10**6)
    assert run(attempts, 2, conn_id=["a", "b"]) == {"conn_id": "b", "submission_id": job}
    assert len(clusters["a"].jobs) == 1


def test_a_second_connection_uses_the_id_of_a_submission_that_may_still_arrive(
    clusters: Clusters, attempts: Attempts
) -> None:
    same_cluster(clusters)
    clusters["a"].fail("close", method="POST", path="/api/jobs/", times=10**6)
    with pytest.raises(errors.RayClusterUnavailable):
        run(attempts, conn_id=["a", "b"])
    remembered = attempts.store["ray_job"]["submission_id"]
    clusters["a"].fail("close", times=10**6)
    assert run(attempts, 2, conn_id=["a", "b"]) == {"conn_id": "b", "submission_id": remembered}


def test_without_durable_the_job_of_a_trigger_that_failed_is_stopped_and_named(
    clusters: Clusters, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, task_log: TaskLog
) -> None:
    job = leave_active(attempts, clusters["a"], monkeypatch)
    attempts.store.clear()
    with pytest.raises(TaskDeferralError, match="no such trigger"):
        operator(deferrable=True, durable=False).resume_execution(
            "__fail__", {"error": "no such trigger"}, attempts.context(max_tries=5)
        )
    assert states(clusters["a"]) == ["STOPPED"]
    assert f"Asked Ray job {job} to stop: STOPPED" in task_log.lines


@pytest.mark.parametrize("conn_id", ["a", "missing"])
def test_a_trigger_that_failed_without_a_job_to_be_found_says_so(
    clusters: Clusters, attempts: Attempts, task_log: TaskLog, conn_id: str
) -> None:
    with pytest.raises(TaskDeferralError, match="no such trigger"):
        operator(deferrable=True, durable=False, conn_id=conn_id).resume_execution(
            "__fail__", {"error": "no such trigger"}, attempts.context()
        )
    assert "may still arrive" in task_log.lines[-1]
    assert any("Cannot look for active Ray jobs" in line for line in task_log.lines) == (conn_id == "missing")


def test_a_kill_that_comes_before_the_earlier_jobs_are_known_says_so(
    clusters: Clusters, attempts: Attempts, task_log: TaskLog
) -> None:
    task = operator()
    task._begin(attempts.context(try_number=2))
    task.on_kill()
    assert "before it knew the Ray jobs of its earlier attempts" in task_log.lines[-1]
