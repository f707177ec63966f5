"""RayJobSensor: waits for jobs that somebody else submitted."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSensorTimeout, AirflowSkipException

from airflow_provider_ray.client import errors, pacing
from airflow_provider_ray.hooks import options
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.sensors.job import RayJobSensor
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.conftest import TaskLog
from tests.unit.deferral import run_deferred

MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferrable"])


def sensor(**arguments: Any) -> RayJobSensor:
    given = {"task_id": "wait", "poke_interval": 0.1, "timeout": 30, "deferrable": False}
    return RayJobSensor(**{**given, **arguments})


def run(task: RayJobSensor, context: Any) -> Any:
    return run_deferred(task, context) if task.deferrable else task.execute(context)


def submit(dashboard: FakeDashboard, submission_id: str, outcome: Outcome, **metadata: str) -> None:
    dashboard.outcomes[submission_id] = outcome
    RayHook().submit_job("true", submission_id=submission_id, metadata=metadata)


@MODES
def test_waits_for_a_job_by_id(dashboard: FakeDashboard, context: Any, task_log: TaskLog, deferrable: bool) -> None:
    submit(dashboard, "a", Outcome(ends_after=1, log=b"from the driver\n"))
    result = run(sensor(submission_id="a", fetch_logs=True, deferrable=deferrable), context)
    assert result == {"conn_id": "ray_default", "submission_id": "a", "status": "SUCCEEDED", "seconds": 0.001}
    assert task_log.lines.count("from the driver") == 1
    assert "Ray job a on ray_default: SUCCEEDED after 0 s" in task_log.lines
    assert context["ti"].xcoms["_link_RayJobLink"] == f"{dashboard.url}/#/jobs/a"
    assert ("ray_log_position" in context["ti"].xcoms) == deferrable


@MODES
def test_waits_for_the_newest_job_by_metadata(dashboard: FakeDashboard, context: Any, deferrable: bool) -> None:
    submit(dashboard, "other", Outcome(status="FAILED"), step="train", model="b")
    submit(dashboard, "older", Outcome(status="FAILED"), step="train", model="a")
    dashboard.jobs["older"].submitted_ms -= 1000
    submit(dashboard, "newest", Outcome(ends_after=1), step="train", model="a", run="7")
    metadata = {"step": "train", "model": "a"}
    assert run(sensor(metadata=metadata, deferrable=deferrable), context)["submission_id"] == "newest"


@MODES
def test_a_job_of_another_airflow_on_the_cluster_is_not_meant(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    stamps = {"airflow_dag_id": "d", "airflow_run_id": "r", "airflow_task_id": "t"}

    def become(host: str) -> None:
        """Stand for a process of another Airflow, each of which reads its name once."""
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", f"https://{host}")
        options.installation.cache_clear()

    become("prod.example")
    submit(dashboard, "of-prod", Outcome(status="FAILED", ends_after=0.5), **stamps)
    become("staging.example")
    submit(dashboard, "of-staging", Outcome(), **stamps)
    become("prod.example")
    with pytest.raises(errors.RayJobFailed, match="'of-prod'"):
        run(sensor(metadata=stamps, deferrable=deferrable), context)
    named = sensor(metadata={**stamps, "airflow_installation": "staging.example"}, deferrable=False)
    assert run(named, context)["submission_id"] == "of-staging"


def test_waits_for_a_job_by_metadata_that_is_not_there_yet(dashboard: FakeDashboard, context: Any) -> None:
    task = sensor(metadata={"step": "train"})
    assert not task.poke(context)
    submit(dashboard, "a", Outcome(), step="train")
    assert task.poke(context)


@MODES
@pytest.mark.parametrize(("status", "error"), [("FAILED", errors.RayJobFailed), ("STOPPED", errors.RayJobStopped)])
def test_fails_or_skips_with_the_jobs_verdict(
    dashboard: FakeDashboard, context: Any, deferrable: bool, status: str, error: type[Exception]
) -> None:
    submit(dashboard, "a", Outcome(status=status, ends_after=0.5, exit_code=5, log=b"the reason\n"))
    with pytest.raises(error, match="'a' on 'ray_default' .*\n.*\n(.*\n)*.*the reason"):
        run(sensor(submission_id="a", deferrable=deferrable), context)


def test_by_default_a_jobs_verdict_is_final_and_other_faults_are_retried(
    dashboard: FakeDashboard, context: Any
) -> None:
    submit(dashboard, "a", Outcome(status="FAILED"))
    task = sensor(submission_id="a")
    with pytest.raises(errors.RayJobFailed) as failed:
        run(task, context)
    assert task.retry_policy is not None
    assert task.retry_policy.evaluate(failed.value, 1, 3).action == RetryAction.FAIL
    away = errors.RayClusterUnavailable("GET http://ray", "no connection")
    assert task.retry_policy.evaluate(away, 1, 3).action == RetryAction.DEFAULT
    assert sensor(submission_id="a", retry_policy=None).retry_policy is None


@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
@MODES
def test_skips_instead_of_failing(dashboard: FakeDashboard, context: Any, deferrable: bool, flag: str) -> None:
    submit(dashboard, "a", Outcome(status="FAILED", ends_after=0.5))
    with pytest.raises(AirflowSkipException):
        run(sensor(submission_id="a", deferrable=deferrable, **{flag: True}), context)


@pytest.mark.parametrize("status", [403, 404])
@MODES
def test_a_soft_sensor_skips_when_the_cluster_refuses(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool, status: int
) -> None:
    monkeypatch.setattr(pacing, "SECOND_LOOK_SECONDS", 0.1)
    submit(dashboard, "a", Outcome(ends_after=None))
    dashboard.fail(status, method="GET", path="/api/jobs/", times=9)
    with pytest.raises(AirflowSkipException):
        sensor(submission_id="a", deferrable=deferrable, soft_fail=True).execute(context)


@MODES
def test_gives_up_after_its_timeout_and_leaves_the_job(
    dashboard: FakeDashboard, context: Any, deferrable: bool
) -> None:
    submit(dashboard, "a", Outcome(ends_after=None))
    with pytest.raises(AirflowSensorTimeout):
        run(sensor(submission_id="a", deferrable=deferrable, timeout=0.3), context)
    with pytest.raises(AirflowSkipException):
        run(sensor(submission_id="a", deferrable=deferrable, timeout=0.3, soft_fail=True), context)
    assert dashboard.jobs["a"].status == "RUNNING"


def test_a_cluster_that_is_away_is_waited_for_in_the_triggerer(dashboard: FakeDashboard, context: Any) -> None:
    submit(dashboard, "a", Outcome())
    dashboard.fail(503, method="GET", path="/api/jobs/")
    assert run(sensor(submission_id="a", deferrable=True), context)["status"] == "SUCCEEDED"


def test_gives_up_on_a_job_by_metadata_that_never_comes(dashboard: FakeDashboard, context: Any) -> None:
    with pytest.raises(AirflowSensorTimeout, match="metadata"):
        run(sensor(metadata={"step": "none"}, deferrable=True, timeout=0.3), context)


@MODES
def test_one_404_is_not_the_last_word(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    """A head that is just coming up may speak too early."""
    monkeypatch.setattr(pacing, "SECOND_LOOK_SECONDS", 0.1)
    submit(dashboard, "a", Outcome(ends_after=0.5))
    dashboard.fail(404, method="GET", path="/api/jobs/")
    assert run(sensor(submission_id="a", deferrable=deferrable), context)["status"] == "SUCCEEDED"


def test_a_job_that_does_not_exist_is_an_error_at_once(dashboard: FakeDashboard, context: Any) -> None:
    with pytest.raises(errors.RayNotFound, match="gone"):
        sensor(submission_id="gone").execute(context)


def test_gives_the_worker_back_between_two_looks(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    context["ti"].get_first_reschedule_date = lambda context: None
    submit(dashboard, "a", Outcome(ends_after=0.5))
    task = sensor(submission_id="a", mode="reschedule")
    with pytest.raises(AirflowRescheduleException):
        task.execute(context)
    dashboard.jobs["a"].submitted -= 1
    assert task.execute(context)["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "submission_id and metadata: got neither"),
        ({"submission_id": "a", "metadata": {"b": "c"}}, "submission_id and metadata: got both"),
        ({"submission_id": "a/b"}, "submission_id: got 'a/b'"),
        ({"metadata": {"airflow_map_index": 0.5}}, r"metadata\['airflow_map_index'\]: got a value of type float"),
    ],
)
def test_bad_arguments_are_named(
    dashboard: FakeDashboard, context: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.RayConfigError, match=message):
        sensor(**arguments).execute(context)
    assert not dashboard.requests
