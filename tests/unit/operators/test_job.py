"""RaySubmitJobOperator against a fake cluster: what it sends, what it returns, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import shlex
import threading
import time
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, RetryAction
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferralError, TaskDeferred

from airflow_provider_ray.client import errors, pacing
from airflow_provider_ray.client.api.job_spec import JobSpec
from airflow_provider_ray.client.jobs import outcome, submission
from airflow_provider_ray.client.jobs.submission import NONCE_KEY
from airflow_provider_ray.hooks import options
from airflow_provider_ray.hooks.ray import RayHook
from airflow_provider_ray.jobs.attempt import CurrentJob
from airflow_provider_ray.jobs.retry_policy import RayRetryPolicy
from airflow_provider_ray.jobs.stopping import StoppableJob
from airflow_provider_ray.operators.job import RaySubmitJobOperator
from airflow_provider_ray.triggers.base import FAULT
from tests.fake_dashboard import FakeDashboard, Outcome
from tests.unit.client.test_values import Lazy
from tests.unit.conftest import Attempts, TaskLog, connect
from tests.unit.deferral import first_event, rebuilt, run_deferred

MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferrable"])


def operator(**arguments: Any) -> RaySubmitJobOperator:
    given = {"task_id": "submit", "entrypoint": "python main.py", "poll_interval": 0.1, "deferrable": False}
    return RaySubmitJobOperator(**{**given, **arguments})


def run(task: RaySubmitJobOperator, context: Any) -> Any:
    return run_deferred(task, context) if task.deferrable else task.execute(context)


def only_job(dashboard: FakeDashboard) -> str:
    (submission_id,) = dashboard.jobs
    return submission_id


@MODES
def test_returns_the_sensors_arguments_and_relays_the_log(
    dashboard: FakeDashboard, context: Any, task_log: TaskLog, deferrable: bool
) -> None:
    dashboard.default_outcome = Outcome(ends_after=0.5, log=[(0, b"first\n"), (0.3, b"second\n100 %s last")])
    result = run(operator(deferrable=deferrable), context)
    assert result == {"conn_id": "ray_default", "submission_id": only_job(dashboard)}
    driver = ["first", "second", "100 %s last"]
    assert [line for line in task_log.lines if line in driver] == driver


def test_what_is_submitted_is_folded_in_the_task_log(dashboard: FakeDashboard, context: Any, task_log: TaskLog) -> None:
    runtime_env = {"pip": ["numpy"], "env_vars": {"PLAIN": "do-not-show"}}
    operator(runtime_env=runtime_env, parameters={"long": "x" * 5000}).execute(context)
    begin, end = task_log.lines.index(f"::group::Ray job {only_job(dashboard)}"), task_log.lines.index("::endgroup::")
    folded = dict(line.split(": ", 1) for line in task_log.lines[begin + 1 : end])
    assert folded["runtime_env"] == "{'pip': ['numpy'], 'env_vars': {'PLAIN': '***'}}"
    assert folded["entrypoint"].startswith("python main.py '{")
    assert len(folded["entrypoint"]) == 2000
    assert "airflow_dag_id" in folded["metadata"]


@MODES
def test_says_the_same_about_a_failed_job_in_both_modes(
    dashboard: FakeDashboard, context: Any, deferrable: bool
) -> None:
    dashboard.default_outcome = Outcome(
        status="FAILED",
        exit_code=3,
        message="Job entrypoint command failed, last available logs:\nValueError: two",
        error_type="JOB_ENTRYPOINT_COMMAND_ERROR",
        log=b"one\nTraceback\nValueError: two\n",
    )
    with pytest.raises(errors.RayJobFailed) as caught:
        run(operator(deferrable=deferrable), context)
    job = only_job(dashboard)
    assert str(caught.value).splitlines() == [
        f"Ray job {job!r} on 'ray_default' failed",
        "status=FAILED error_type=JOB_ENTRYPOINT_COMMAND_ERROR driver_exit_code=3",
        "Ray says: Job entrypoint command failed, last available logs:",
        "Last lines of the driver log:",
        "  one",
        "  Traceback",
        "  ValueError: two",
        f"Dashboard: {dashboard.url}/#/jobs/{job}",
    ]


def test_shows_the_last_lines_of_a_failed_job_without_fetch_logs(dashboard: FakeDashboard, context: Any) -> None:
    log = b"".join(b"line %d\n" % number for number in range(100))
    dashboard.default_outcome = Outcome(status="FAILED", exit_code=1, log=log)
    with pytest.raises(errors.RayJobFailed, match="line 99") as caught:
        operator(fetch_logs=False).execute(context)
    assert "line 79" not in str(caught.value)


@MODES
def test_a_job_that_somebody_stopped_is_a_failure(dashboard: FakeDashboard, context: Any, deferrable: bool) -> None:
    dashboard.default_outcome = Outcome(status="STOPPED", exit_code=None)
    with pytest.raises(errors.RayJobStopped):
        run(operator(deferrable=deferrable), context)


@MODES
def test_a_job_that_takes_too_long_is_stopped(dashboard: FakeDashboard, context: Any, deferrable: bool) -> None:
    dashboard.default_outcome = Outcome(ends_after=None, stop_after=0.3)
    with pytest.raises(errors.RayJobTimeout, match="did not end in time"):
        run(operator(deferrable=deferrable, timeout=timedelta(seconds=0.5)), context)
    assert dashboard.jobs[only_job(dashboard)].status == "STOPPED"


@MODES
@pytest.mark.parametrize(("last_try", "left"), [(False, "RUNNING"), (True, "STOPPED")])
def test_a_job_out_of_sight_is_left_to_the_next_attempt_or_stopped(
    dashboard: FakeDashboard, attempts: Attempts, deferrable: bool, last_try: bool, left: str
) -> None:
    dashboard.default_outcome = Outcome(ends_after=None)
    dashboard.fail(418, method="GET", path="/api/jobs/")
    context = attempts.context(try_number=2 if last_try else 1, max_tries=1)
    with pytest.raises(errors.RayRequestRefused, match="418"):
        run(operator(deferrable=deferrable), context)
    assert dashboard.jobs[only_job(dashboard)].status == left


@MODES
def test_a_job_out_of_sight_is_stopped_when_the_policy_wants_no_retry(
    dashboard: FakeDashboard, attempts: Attempts, deferrable: bool
) -> None:
    dashboard.default_outcome = Outcome(ends_after=None)
    dashboard.fail(418, method="GET", path="/api/jobs/")
    with pytest.raises(errors.RayRequestRefused, match="418"):
        run(operator(deferrable=deferrable, retry_policy=RayRetryPolicy()), attempts.context(max_tries=3))
    assert dashboard.jobs[only_job(dashboard)].status == "STOPPED"


@MODES
def test_an_earlier_attempts_job_that_was_being_stopped_is_replaced(
    dashboard: FakeDashboard, attempts: Attempts, deferrable: bool
) -> None:
    dashboard.default_outcome = Outcome(ends_after=None, stop_after=1.0)
    operator(wait_for_completion=False).execute(attempts.context(max_tries=1))
    first = only_job(dashboard)
    RayHook().run(lambda client: client.jobs.stop(first))
    dashboard.default_outcome = Outcome()
    result = run(operator(deferrable=deferrable), attempts.context(try_number=2, max_tries=1))
    assert [job.status for job in dashboard.jobs.values()] == ["STOPPED", "SUCCEEDED"]
    assert result["submission_id"] == list(dashboard.jobs)[1]


@MODES
def test_a_cleared_task_does_not_believe_a_single_404(
    dashboard: FakeDashboard, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    monkeypatch.setattr(pacing, "SECOND_LOOK_SECONDS", 0.1)
    dashboard.default_outcome = Outcome(ends_after=None)
    operator(wait_for_completion=False).execute(attempts.context(max_tries=1))
    dashboard.default_outcome = Outcome()
    dashboard.fail(404, method="GET", path=f"/api/jobs/{only_job(dashboard)}")
    run(operator(deferrable=deferrable), attempts.context(try_number=2, max_tries=2))
    assert [job.status for job in dashboard.jobs.values()] == ["STOPPED", "SUCCEEDED"]


@pytest.mark.parametrize(("last_try", "left"), [(False, "RUNNING"), (True, "STOPPED")])
def test_the_last_attempt_stops_the_job_of_a_trigger_that_failed(
    dashboard: FakeDashboard, attempts: Attempts, last_try: bool, left: str
) -> None:
    dashboard.default_outcome = Outcome(ends_after=None)
    operator(wait_for_completion=False).execute(attempts.context(max_tries=1))
    context = attempts.context(try_number=2 if last_try else 1, max_tries=1)
    with pytest.raises(TaskDeferralError, match="no such trigger"):
        operator(deferrable=True).resume_execution("__fail__", {"error": "no such trigger"}, context)
    assert dashboard.jobs[only_job(dashboard)].status == left


def test_a_kill_after_the_hand_over_stops_nothing(dashboard: FakeDashboard, context: Any) -> None:
    dashboard.default_outcome = Outcome(ends_after=None)
    task = operator(wait_for_completion=False)
    task.execute(context)
    task.on_kill()
    assert dashboard.jobs[only_job(dashboard)].status == "RUNNING"


def test_a_kill_during_the_submission_is_no_success(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.default_outcome = Outcome(ends_after=None)
    task = operator(wait_for_completion=False)
    post = submission.post

    async def killed_meanwhile(*arguments: Any) -> None:
        await post(*arguments)
        assert task._attempt is not None
        task._attempt.is_killed = True

    monkeypatch.setattr(submission, "post", killed_meanwhile)
    with pytest.raises(errors.RayJobInterrupted, match="while its task was being killed"):
        task.execute(context)
    assert dashboard.jobs[only_job(dashboard)].status == "STOPPED"


@pytest.mark.parametrize("runtime_env", ["{{ params.all }}", {"env_vars": "{{ params.all }}"}], ids=["all", "env_vars"])
def test_secrets_that_are_no_dict_are_not_shown(context: Any, runtime_env: Any) -> None:
    with DAG("d", schedule=None):
        task = operator(runtime_env=runtime_env)
    context["params"] = {"all": "do-not-show"}
    with pytest.raises(
        errors.RayConfigError, match=r"runtime_env.*: got a str; expected a dict, or a template"
    ) as caught:
        task.render_template_fields(context)
    assert "do-not-show" not in str(caught.value)


@pytest.mark.parametrize("native", [False, True])
def test_a_template_of_a_whole_runtime_env(dashboard: FakeDashboard, context: Any, native: bool) -> None:
    from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields

    with DAG("d", schedule=None, render_template_as_native_obj=native):
        task = operator(
            runtime_env="{{ params.all }}",
            metadata="{{ params.metadata }}",
            entrypoint_resources="{{ params.resources }}",
            entrypoint_label_selector="{{ params.labels }}",
        )
    env_vars = {"KEY": "do-not-show", "NUMBER": 5}
    context["params"] = {
        "all": {"pip": ["six"], "env_vars": env_vars},
        "metadata": {"team": "a"},
        "resources": {"fast": "1"},
        "labels": {"site": "hpc"},
    }
    task.render_template_fields(context)
    assert "do-not-show" not in json.dumps(_serialize_rendered_fields(task))
    task.execute(context)
    sent = dashboard.jobs[only_job(dashboard)].body
    assert sent["runtime_env"] == {"pip": ["six"], "env_vars": {"KEY": "do-not-show", "NUMBER": "5"}}
    assert sent["metadata"]["team"] == "a"
    assert sent["entrypoint_resources"] == {"fast": 1}
    assert sent["entrypoint_label_selector"] == {"site": "hpc"}


def test_values_of_variables_whose_names_are_secret_are_masked(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.common.compat.sdk import redact
    from airflow.sdk._shared.secrets_masker import _secrets_masker

    monkeypatch.setattr(_secrets_masker(), "mask_secrets_in_logs", True, raising=False)
    with DAG("d", schedule=None):
        task = operator(runtime_env={"env_vars": {"API_TOKEN": "{{ params.given }}", "PLACE": "anywhere"}})
    context["params"] = {"given": "t0ken-of-an-api"}
    task.render_template_fields(context)
    assert redact("the driver says t0ken-of-an-api anywhere") == "the driver says *** anywhere"


LEAKS: list[tuple[dict[str, Any], str]] = [
    ({"working_dir": "https://a.blob.core.windows.net/c/d.zip?sp=r&sig=aB3x9yZsig01"}, "aB3x9yZsig01"),
    ({"py_modules": ["https://ci:p4ssw0rd@files.example/m.zip"]}, "p4ssw0rd"),
    (
        {"pip": {"packages": ["a"], "pip_install_options": ["--index-url=https://ci:p4ssw0rd@pypi.example/"]}},
        "p4ssw0rd",
    ),
    ({"uv": ["pkg @ git+https://ghp_16C7e42F292c6912E7@github.com/a/b"]}, "ghp_16C7e42F292c6912E7"),
    ({"conda": {"channels": ["https://conda.example/t/tk-1234-abcd/chan"]}}, "tk-1234-abcd"),
    ({"container": {"image": "i", "run_options": ["--env=DB_PASSWORD=hunter2!"]}}, "hunter2!"),
]


@MODES
@pytest.mark.parametrize(("runtime_env", "secret"), LEAKS)
def test_credentials_in_a_runtime_env_are_shown_nowhere_and_arrive(
    dashboard: FakeDashboard,
    context: Any,
    monkeypatch: pytest.MonkeyPatch,
    task_log: TaskLog,
    deferrable: bool,
    runtime_env: dict[str, Any],
    secret: str,
) -> None:
    from airflow.providers.common.compat.sdk import redact
    from airflow.sdk._shared.secrets_masker import SecretsMasker
    from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields

    monkeypatch.setattr(SecretsMasker, "mask_secrets_in_logs", True)
    with DAG("d", schedule=None):
        task = operator(runtime_env=runtime_env, deferrable=deferrable)
    task.render_template_fields(context)
    assert secret not in json.dumps(_serialize_rendered_fields(task))
    assert secret not in repr(task.runtime_env)
    said = f"pip said {secret} and https://u:{secret}@h/"
    dashboard.default_outcome = Outcome(status="FAILED", exit_code=None, message=said, has_driver=False)
    with pytest.raises(errors.RayJobFailed) as caught:
        run(task, context)
    assert f":{secret}@" not in str(caught.value)
    assert secret not in redact(str(caught.value))
    assert not [line for line in task_log.lines if "runtime_env" in line and secret in line]
    assert dashboard.jobs[only_job(dashboard)].body["runtime_env"] == runtime_env


def test_ordinary_values_of_variables_are_not_masked(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.common.compat.sdk import redact
    from airflow.sdk._shared.secrets_masker import SecretsMasker

    monkeypatch.setattr(SecretsMasker, "mask_secrets_in_logs", True)
    env_vars = {"TOKENIZERS_PARALLELISM": "false", "MAX_TOKENS": "16384", "SECRET_REGION": "eu-west-1"}
    with DAG("d", schedule=None):
        task = operator(runtime_env={"env_vars": env_vars}, parameters={"tokens": "unlimited", "password": "hunter22"})
    task.render_template_fields(context)
    said = "16384 words in eu-west-1, unlimited: false"
    assert redact(said) == said
    assert redact("hunter22") == "***"


def test_the_triggerer_masks_what_the_worker_rendered_even_for_a_resumed_job(
    dashboard: FakeDashboard, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.default_outcome = Outcome(ends_after=1.0)
    given = {"runtime_env": {"env_vars": {"API_TOKEN": "t0ken-for-a-resumed-job"}}}
    operator(wait_for_completion=False, **given).execute(attempts.context())
    masked: list[str] = []

    async def note(secrets: list[str]) -> None:
        masked.extend(secrets)

    monkeypatch.setattr("airflow_provider_ray.triggers.job.amask_secret", note)
    run(operator(deferrable=True, **given), attempts.context(try_number=2))
    assert masked == ["t0ken-for-a-resumed-job"]


def test_stamps_the_task_on_the_job(dashboard: FakeDashboard, attempts: Attempts) -> None:
    metadata = {"team": "a"}
    operator(metadata=metadata).execute(attempts.context(map_index=4))
    sent = dashboard.jobs[only_job(dashboard)].body
    assert attempts.store["ray_job"]["nonce"] == sent["metadata"].pop("airflow_nonce")
    assert sent["metadata"] == {
        "team": "a",
        "airflow_installation": options.installation(),
        "airflow_dag_id": "my dag",
        "airflow_run_id": "manual__2026-01-01T00:00:00+00:00",
        "airflow_task_id": "group.submit",
        "airflow_map_index": "4",
        "airflow_try_number": "1",
        "airflow_max_tries": "1",
    }
    assert metadata == {"team": "a"}
    assert sent["submission_id"].startswith("my_dag-group_submit-4-")


def test_sends_every_field_that_is_given_and_no_other(dashboard: FakeDashboard, context: Any) -> None:
    operator(
        entrypoint=["python", "main.py", "two words"],
        entrypoint_num_cpus="0.5",
        entrypoint_num_gpus=0,
        entrypoint_memory="1000",
        entrypoint_resources={"fast": 1},
        entrypoint_label_selector={"site": "hpc"},
        runtime_env={"env_vars": {"A": "b"}},
        submission_id="chosen",
    ).execute(context)
    sent = dict(dashboard.jobs["chosen"].body)
    del sent["metadata"]
    assert sent == {
        "entrypoint": "python main.py 'two words'",
        "submission_id": "chosen",
        "entrypoint_num_cpus": 0.5,
        "entrypoint_num_gpus": 0,
        "entrypoint_memory": 1000,
        "entrypoint_resources": {"fast": 1},
        "entrypoint_label_selector": {"site": "hpc"},
        "runtime_env": {"env_vars": {"A": "b"}},
    }


def test_parameters_arrive_unchanged(dashboard: FakeDashboard, context: Any) -> None:
    parameters = {"text": 'it\'s "quoted" $(touch /x) `y` \\ \n ünï ☃', "list": [1, 2.5, None, True]}
    operator(parameters=parameters).execute(context)
    command = dashboard.jobs[only_job(dashboard)].body["entrypoint"]
    assert command.isascii()
    *program, argument = shlex.split(command)
    assert program == ["python", "main.py"]
    assert json.loads(argument) == parameters


def test_the_output_of_a_mapped_task_arrives_as_a_list(dashboard: FakeDashboard, context: Any) -> None:
    with DAG("d", schedule=None):
        task = operator(
            entrypoint=["python", Path("main.py")],
            parameters={"files": ["{{ params.files }}"], "since": date(2026, 1, 2)},
            runtime_env={"pip": "{{ params.pip }}"},
        )
    # As Airflow replaces an XComArg, at any depth.
    task.parameters, task.runtime_env = {**task.parameters, "files": [Lazy("a", "b")]}, {"pip": Lazy("six")}
    task.render_template_fields(context)
    task.execute(context)
    sent = dashboard.jobs[only_job(dashboard)].body
    assert sent["entrypoint"] == """python main.py '{"files": [["a", "b"]], "since": "2026-01-02"}'"""
    assert sent["runtime_env"] == {"pip": ["six"]}


def test_text_that_is_rendered_natively(dashboard: FakeDashboard, context: Any) -> None:
    context["params"] = {"version": "3.10", "number": 7}
    with DAG("d", schedule=None, render_template_as_native_obj=True):
        refused = operator(metadata={"version": "{{ params.version }}"})
        kept = operator(task_id="kept", metadata={"version": "'{{ params.version }}'", "number": "{{ params.number }}"})
    refused.render_template_fields(context)
    with pytest.raises(
        errors.RayConfigError, match=r"^metadata\['version'\]: got a value of type float; .*'{{ ... }}'"
    ):
        refused.execute(context)
    kept.render_template_fields(context)
    kept.execute(context)
    sent = dashboard.jobs[only_job(dashboard)].body["metadata"]
    assert (sent["version"], sent["number"]) == ("3.10", "7")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "poll_interval": ({"poll_interval": 0}, "poll_interval: got 0; expected a number of seconds above 0"),
    "timeout": ({"timeout": "soon"}, "timeout: got 'soon'; expected a number of seconds above 0"),
    "metadata text": ({"metadata": "team"}, "metadata: got a str; expected a dict"),
    "parameters": ({"parameters": {"a": {1, 2}}}, "parameters: .*not JSON"),
    "parameters NaN": ({"parameters": [float("nan")]}, "parameters: .*not JSON"),
    "parameters keys": ({"parameters": {1: 2}}, "parameters: .*not a string"),
    "parameters size": ({"parameters": "x" * 200_000}, "entrypoint: got 2000.. bytes"),
    "entrypoint": ({"entrypoint": "  "}, "entrypoint: got nothing"),
    "entrypoint type": ({"entrypoint": ["python", 0.5]}, r"entrypoint\[1\]: got a value of type float; .*a string"),
    "env_vars": (
        {"runtime_env": {"env_vars": {"A": True}}},
        r"\['A'\]: got a value of type bool; .*a string",
    ),
    "runtime_env": ({"runtime_env": ["pip"]}, "runtime_env"),
    "metadata": ({"metadata": {"a": 1.5}}, r"metadata\['a'\]: .*a string"),
    "cpus": ({"entrypoint_num_cpus": "many"}, "entrypoint_num_cpus: got 'many'; expected a number"),
    "gpus": ({"entrypoint_num_gpus": -1}, "entrypoint_num_gpus: got -1"),
    "memory": ({"entrypoint_memory": 0.5}, "entrypoint_memory: got 0.5; expected a whole number"),
    "id slash": ({"submission_id": "a/b"}, "submission_id: got 'a/b'"),
    "id length": ({"submission_id": "a" * 201}, "submission_id"),
    "py_modules": ({"runtime_env": {"py_modules": ["./lib"]}}, "py_modules.*local.*URIs"),
    "pip": ({"runtime_env": {"pip": "requirements.txt"}}, "pip.*'requirements.txt' .*expected a list of packages"),
    "resources": ({"entrypoint_resources": {"fast": None}}, "entrypoint_resources: got 'fast': None; expected"),
    "working_dir": ({"runtime_env": {"working_dir": "/does/not/exist"}}, "working_dir.*'/does/not/exist'"),
}


# Files are looked at on the worker.
ONLY_IN_A_RUN = {"pip", "working_dir"}


@pytest.mark.parametrize("case", sorted(set(BAD) - ONLY_IN_A_RUN))
def test_what_is_literal_and_wrong_is_named_in_the_dag_file(case: str) -> None:
    arguments, message = BAD[case]
    with pytest.raises(errors.RayConfigError, match=message):
        operator(**arguments)


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named_before_anything_is_submitted(
    dashboard: FakeDashboard, context: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.RayConfigError, match=message):
        operator(**arguments).execute(context)
    assert not dashboard.asked("POST", "/")


def test_an_extra_keyword_is_refused() -> None:
    with pytest.raises(TypeError, match="entry_point"):
        operator(entry_point="python main.py")


def test_uploads_a_local_working_dir(dashboard: FakeDashboard, context: Any, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print(1)")
    runtime_env = {"working_dir": str(tmp_path)}
    operator(runtime_env=runtime_env).execute(context)
    (uri,) = dashboard.packages
    assert dashboard.jobs[only_job(dashboard)].body["runtime_env"] == {"working_dir": uri}
    assert runtime_env == {"working_dir": str(tmp_path)}


def test_does_not_wait_when_told_so(dashboard: FakeDashboard, context: Any) -> None:
    dashboard.default_outcome = Outcome(ends_after=None)
    task = operator(wait_for_completion=False, deferrable=True)
    assert task.execute(context) == {"conn_id": "ray_default", "submission_id": only_job(dashboard)}


def test_the_link_is_there_before_the_job_ends(dashboard: FakeDashboard, context: Any) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        operator(deferrable=True).execute(context)
    job = deferred.value.trigger.submission_id
    assert context["ti"].xcoms["_link_RayJobLink"] == f"{dashboard.url}/#/jobs/{job}"


def test_the_link_has_the_public_address(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, "fake", dashboard, extra={"public_url": "https://ray.example/"})
    operator(conn_id="fake").execute(context)
    assert context["ti"].xcoms["_link_RayJobLink"] == f"https://ray.example/#/jobs/{only_job(dashboard)}"


def test_a_retry_goes_on_with_an_active_job(dashboard: FakeDashboard, attempts: Attempts) -> None:
    dashboard.default_outcome = Outcome(ends_after=1)
    operator(wait_for_completion=False).execute(attempts.context())
    result = operator().execute(attempts.context(try_number=2))
    assert result["submission_id"] == only_job(dashboard)


def test_a_retry_returns_a_job_that_has_succeeded_meanwhile(dashboard: FakeDashboard, attempts: Attempts) -> None:
    first = operator().execute(attempts.context())
    assert operator().execute(attempts.context(try_number=2)) == first
    assert len(dashboard.jobs) == 1


@pytest.mark.parametrize("submission_id", [None, "chosen"])
def test_a_retry_after_a_failed_job_submits_a_new_one(
    dashboard: FakeDashboard, attempts: Attempts, submission_id: str | None
) -> None:
    dashboard.default_outcome = Outcome(status="FAILED", exit_code=1)
    with pytest.raises(errors.RayJobFailed):
        operator(submission_id=submission_id).execute(attempts.context())
    dashboard.default_outcome = Outcome()
    result = operator(submission_id=submission_id).execute(attempts.context(try_number=2))
    assert list(dashboard.jobs)[1:] == [result["submission_id"]]


def test_a_retry_submits_under_the_same_id_what_never_arrived(dashboard: FakeDashboard, attempts: Attempts) -> None:
    dashboard.fail(400, method="POST", path="/api/jobs/")
    with pytest.raises(errors.RayRequestRefused):
        operator().execute(attempts.context())
    remembered = attempts.store["ray_job"]["submission_id"]
    result = operator().execute(attempts.context(try_number=2))
    assert result["submission_id"] == remembered == only_job(dashboard)


@pytest.mark.parametrize("fault", [500, 503, "close"])
def test_a_post_that_arrived_but_was_not_answered_is_found(dashboard: FakeDashboard, context: Any, fault: Any) -> None:
    dashboard.fail(fault, method="POST", path="/api/jobs/", handled=True)
    operator().execute(context)
    assert len(dashboard.jobs) == 1


def test_the_last_attempt_stops_a_job_that_it_cannot_look_up(dashboard: FakeDashboard, attempts: Attempts) -> None:
    dashboard.default_outcome = Outcome(ends_after=None)
    operator(wait_for_completion=False).execute(attempts.context(max_tries=1))
    dashboard.fail(418, method="GET", path="/api/jobs/")
    with pytest.raises(errors.RayRequestRefused):
        operator(deferrable=True).execute(attempts.context(try_number=2, max_tries=1))
    assert dashboard.jobs[only_job(dashboard)].status == "STOPPED"


def test_the_last_attempt_stops_a_job_that_may_have_been_submitted(
    dashboard: FakeDashboard, attempts: Attempts
) -> None:
    dashboard.default_outcome = Outcome(ends_after=None)
    dashboard.fail("close", method="POST", path="/api/jobs/", handled=True)
    dashboard.fail(418, method="GET", path="/api/jobs/")
    with pytest.raises(errors.RayRequestRefused):
        operator().execute(attempts.context(try_number=1, max_tries=0))
    assert dashboard.jobs[only_job(dashboard)].status == "STOPPED"


def test_a_retry_that_cannot_build_its_job_any_more_goes_on_with_the_earlier_one(
    dashboard: FakeDashboard, attempts: Attempts
) -> None:
    first = operator().execute(attempts.context())
    task = operator()
    task.parameters = {1, 2}
    assert task.execute(attempts.context(try_number=2)) == first


def test_a_cleared_task_does_not_start_anew_while_its_job_lives(
    dashboard: FakeDashboard, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "STOP_CONFIRM_SECONDS", 0.5)
    dashboard.default_outcome = Outcome(ends_after=None, stop_after=None)
    operator(wait_for_completion=False).execute(attempts.context(max_tries=1))
    with pytest.raises(errors.RayJobStopping, match="has not stopped yet after a stop request"):
        operator().execute(attempts.context(try_number=2, max_tries=2))
    assert attempts.store["ray_job"]["submission_id"] == only_job(dashboard)


@MODES
def test_a_retry_after_a_timeout_does_not_go_on_with_the_job_that_was_stopped(
    dashboard: FakeDashboard, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    monkeypatch.setattr(pacing, "STOP_CONFIRM_SECONDS", 0.5)
    dashboard.default_outcome = Outcome(ends_after=None, stop_after=1.5)
    with pytest.raises(errors.RayJobTimeout):
        run(operator(timeout=0.3, deferrable=deferrable), attempts.context())
    monkeypatch.undo()
    connect(monkeypatch, "ray_default", dashboard)
    dashboard.default_outcome = Outcome()
    result = operator().execute(attempts.context(try_number=2))
    old, new = dashboard.jobs
    assert (dashboard.jobs[old].status, result["submission_id"]) == ("STOPPED", new)


def test_a_kill_while_the_submission_is_under_way_stops_the_job_when_it_arrives(
    dashboard: FakeDashboard, context: Any
) -> None:
    dashboard.default_outcome = Outcome(ends_after=None)
    task = operator()
    task._begin(context).job = StoppableJob(RayHook(), "late", "n1", may_arrive=True)
    late = partial(RayHook().submit_job, "true", submission_id="late", metadata={NONCE_KEY: "n1"})
    threading.Timer(1.0, late).start()
    task.on_kill()
    assert dashboard.jobs["late"].status == "STOPPED"


def test_a_kill_while_the_submission_is_under_way_says_that_the_job_may_still_arrive(
    dashboard: FakeDashboard, context: Any, task_log: TaskLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "TASK_KILL_SECONDS", 0.5)
    task = operator()
    task._begin(context).job = StoppableJob(RayHook(), "late", "n1", may_arrive=True)
    task.on_kill()
    assert task_log.lines[-1].startswith("Ray job late is not on ray_default, but its submission may still arrive")


def test_a_package_that_ray_has_forgotten_is_sent_anew_by_a_retry(
    dashboard: FakeDashboard, attempts: Attempts, tmp_path: Path
) -> None:
    (tmp_path / "main.py").touch()
    task = operator(deferrable=True, runtime_env={"working_dir": str(tmp_path)})
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(attempts.context(max_tries=3))
    dashboard.packages.clear()
    event = asyncio.run(first_event(rebuilt(deferred.value.trigger)))
    with pytest.raises(errors.RayTriggerError, match="has lost gcs://.*; another attempt uploads it again") as caught:
        task.execute_complete(attempts.context(max_tries=3), event)
    assert RayRetryPolicy().evaluate(caught.value, 1, 3).action == RetryAction.RETRY
    assert not dashboard.jobs
    run(task, attempts.context(try_number=2, max_tries=3))
    assert [job.status for job in dashboard.jobs.values()] == ["SUCCEEDED"]
    # Once the cluster has the job, it does not matter to a trigger that restarts.
    dashboard.packages.clear()
    assert asyncio.run(first_event(rebuilt(deferred.value.trigger)))["job"]["status"] == "SUCCEEDED"


def test_a_job_is_submitted_by_the_triggerer_and_only_once(
    dashboard: FakeDashboard, context: Any, tmp_path: Path
) -> None:
    (tmp_path / "main.py").touch()
    runtime_env = {"working_dir": str(tmp_path), "env_vars": {"PLAIN": "do-not-show"}}
    with pytest.raises(TaskDeferred) as deferred:
        operator(deferrable=True, runtime_env=runtime_env, entrypoint_num_cpus="0.5").execute(context)
    trigger = deferred.value.trigger
    assert not dashboard.jobs
    assert "do-not-show" not in repr(trigger.serialize())
    first, second = (asyncio.run(first_event(rebuilt(trigger))) for _ in range(2))
    assert first == second
    assert first["submission_id"] == only_job(dashboard)
    body = dashboard.jobs[only_job(dashboard)].body
    assert body["runtime_env"]["working_dir"].startswith("gcs://")
    assert body["runtime_env"]["env_vars"] == {"PLAIN": "do-not-show"}
    assert body["entrypoint_num_cpus"] == 0.5


@MODES
def test_a_submission_that_is_refused_is_the_same_error_in_both_modes(
    dashboard: FakeDashboard, context: Any, deferrable: bool
) -> None:
    dashboard.fail(400, method="POST", path="/api/jobs/")
    with pytest.raises(errors.RayRequestRefused, match="POST .*/api/jobs/"):
        run(operator(deferrable=deferrable), context)
    assert not dashboard.jobs


def test_rendered_parameters_do_not_travel_in_the_triggers_event(dashboard: FakeDashboard, context: Any) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        operator(deferrable=True, parameters={"word": "very-private"}).execute(context)
    event = asyncio.run(first_event(rebuilt(deferred.value.trigger)))
    assert "very-private" not in json.dumps(event)


def test_a_used_id_of_somebody_else_is_refused(dashboard: FakeDashboard, attempts: Attempts) -> None:
    operator(submission_id="taken").execute(attempts.context())
    with pytest.raises(errors.RayConfigError, match="'taken', which another job"):
        operator(submission_id="taken").execute(Attempts().context(map_index=7))


@MODES
def test_a_job_of_somebody_else_is_neither_taken_over_nor_stopped(
    dashboard: FakeDashboard, attempts: Attempts, deferrable: bool
) -> None:
    dashboard.default_outcome = Outcome(ends_after=None)
    RayHook().submit_job("python other.py", submission_id="nightly")
    task = operator(submission_id="nightly", deferrable=deferrable, timeout=0.3)
    for try_number in (1, 2):
        with pytest.raises(errors.RayConfigError, match="'nightly', which another job"):
            run(task, attempts.context(try_number=try_number, max_tries=1))
    with pytest.raises(errors.RayJobTimeout, match="'nightly-"):
        run(task, attempts.context(try_number=3, max_tries=2))
    assert [job.status for job in dashboard.jobs.values()] == ["RUNNING", "STOPPED"]


def test_a_successor_of_a_long_id_is_accepted(dashboard: FakeDashboard, attempts: Attempts) -> None:
    dashboard.default_outcome = Outcome(status="FAILED")
    with pytest.raises(errors.RayJobFailed):
        operator(submission_id="a" * 200).execute(attempts.context())
    dashboard.default_outcome = Outcome()
    assert operator(submission_id="a" * 200).execute(attempts.context(try_number=2))["submission_id"] != "a" * 200


def test_a_task_that_was_killed_while_it_prepared_submits_nothing(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = operator()
    upload = task._upload

    def killed_meanwhile(job: CurrentJob, spec: JobSpec) -> JobSpec:
        task.on_kill()
        return upload(job, spec)

    monkeypatch.setattr(task, "_upload", killed_meanwhile)
    with pytest.raises(RuntimeError, match="killed before"):
        task.execute(context)
    assert not dashboard.jobs


def test_a_task_that_was_killed_before_it_began_submits_nothing(dashboard: FakeDashboard, context: Any) -> None:
    """Airflow's handler for SIGTERM is there while templates are rendered."""
    task = operator()
    task.on_kill()
    with pytest.raises(RuntimeError, match="killed before"):
        task.execute(context)
    assert not dashboard.jobs


def test_a_kill_before_the_task_began_stops_the_job_of_the_earlier_attempt(
    dashboard: FakeDashboard, attempts: Attempts
) -> None:
    dashboard.default_outcome = Outcome(ends_after=4)
    operator(wait_for_completion=False).execute(attempts.context())
    task = operator()
    task.on_kill()
    with pytest.raises(RuntimeError, match="killed before"):
        task.execute(attempts.context(try_number=2))
    assert dashboard.jobs[only_job(dashboard)].status == "STOPPED"


def test_a_kill_before_the_task_resumed_stops_the_job_that_the_trigger_lost(
    dashboard: FakeDashboard, context: Any
) -> None:
    dashboard.default_outcome = Outcome(ends_after=None)
    left_behind = {"conn_id": "fake", "submission_id": "older", "nonce": "n0"}
    for name, nonce in (("mine", "n1"), ("older", "n0")):
        RayHook().submit_job("true", submission_id=name, metadata={NONCE_KEY: nonce})
    event = {
        "event": FAULT,
        "conn_id": "ray_default",
        "submission_id": "mine",
        "nonce": "n1",
        "left_behind": [left_behind],
        "adopted": True,
        **outcome.Outcome(fault=errors.RayClusterUnavailable.from_message("away")).to_json(),
    }
    task = operator()
    task.on_kill()
    with pytest.raises(errors.RayClusterUnavailable):
        task.execute_complete(context, event)
    assert [job.status for job in dashboard.jobs.values()] == ["STOPPED", "STOPPED"]


def test_an_earlier_connection_that_is_gone_does_not_block_the_task(
    dashboard: FakeDashboard, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    connect(monkeypatch, "retired", dashboard)
    operator(conn_id="retired").execute(attempts.context())
    monkeypatch.delenv("AIRFLOW_CONN_RETIRED")
    operator().execute(attempts.context(try_number=2, max_tries=2))
    assert len(dashboard.jobs) == 2
    assert "out of reach" in caplog.text


def test_a_cleared_task_stops_its_job_and_submits_anew(dashboard: FakeDashboard, attempts: Attempts) -> None:
    dashboard.default_outcome = Outcome(ends_after=None, stop_after=0.5)
    operator(wait_for_completion=False).execute(attempts.context(max_tries=1))
    dashboard.default_outcome = Outcome()
    result = operator().execute(attempts.context(try_number=2, max_tries=2))
    old, new = dashboard.jobs
    assert dashboard.jobs[old].status == "STOPPED"
    assert result["submission_id"] == new


def test_killing_the_task_stops_the_job(dashboard: FakeDashboard, context: Any) -> None:
    dashboard.default_outcome = Outcome(ends_after=None, stop_after=0.3)
    task = operator()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            task.execute(context)
        except errors.RayJobInterrupted as error:
            failures.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    while not dashboard.jobs:
        time.sleep(0.05)
    task.on_kill()
    assert dashboard.jobs[only_job(dashboard)].status == "STOPPED"
    worker.join(timeout=10)
    (failure,) = failures
    assert RayRetryPolicy().evaluate(failure, 1, 1).action == RetryAction.RETRY


def test_a_kill_that_cannot_reach_the_cluster_says_so(
    dashboard: FakeDashboard, context: Any, task_log: TaskLog
) -> None:
    task = operator()
    task._begin(context).job = StoppableJob(RayHook(), "mine", "n1")
    dashboard.fail(418, path="/")
    task.on_kill()
    assert "could not be stopped and may still be running" in task_log.lines[-1]


def test_fields_are_templated_and_env_vars_do_not_show(dashboard: FakeDashboard, context: Any) -> None:
    from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields

    with DAG("d", schedule=None):
        task = operator(
            conn_id="{{ params.cluster }}",
            parameters={"amount": "{{ params.amount }}"},
            runtime_env={"pip": ["{{ params.package }}"], "env_vars": {"PLAIN": "{{ params.hidden }}"}},
        )
    context["params"] = {"cluster": "fake", "amount": 3, "package": "numpy", "hidden": "do-not-show"}
    task.render_template_fields(context)
    shown = _serialize_rendered_fields(task)
    assert shown["conn_id"] == "fake"
    assert shown["runtime_env"] == {"pip": ["numpy"], "env_vars": {"PLAIN": "***"}}
    assert "do-not-show" not in repr(task.runtime_env)
    task.execute(context)
    assert dashboard.jobs[only_job(dashboard)].body["runtime_env"]["env_vars"] == {"PLAIN": "do-not-show"}


def test_unknown_connections_and_other_types_are_named(
    dashboard: FakeDashboard, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowNotFoundException

    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "http", "host": "127.0.0.1"}))
    with pytest.raises(AirflowNotFoundException, match="missing"):
        operator(conn_id="missing").execute(context)
    with pytest.raises(errors.RayConfigError, match="'other' of type 'http'; expected .* 'ray'"):
        operator(conn_id="other").execute(context)


@MODES
def test_a_lost_job_is_replaced_by_the_next_attempt(
    dashboard: FakeDashboard, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    monkeypatch.setattr(pacing, "NODES_LOOK_SECONDS", 0.2)
    dashboard.default_outcome = Outcome(ends_after=None, stop_after=None)
    monkeypatch.setattr(pacing, "LOST_STOP_SECONDS", 0.2)
    alive = dict(dashboard.nodes[0])
    dashboard.nodes[0]["state"] = "DEAD"
    with pytest.raises(errors.RayJobLost, match="is lost: the node"):
        run(operator(deferrable=deferrable), attempts.context())
    dashboard.nodes[0] = alive
    dashboard.default_outcome = Outcome()
    result = run(operator(deferrable=deferrable), attempts.context(try_number=2))
    lost, _ = dashboard.jobs.values()
    assert lost.status == "RUNNING"
    assert result["submission_id"] == list(dashboard.jobs)[1]
    assert len(dashboard.asked("POST", f"/api/jobs/{lost.body['submission_id']}/stop")) > 1


@MODES
def test_a_job_that_does_not_start_in_time_fails_the_task(
    dashboard: FakeDashboard, context: Any, deferrable: bool
) -> None:
    dashboard.default_outcome = Outcome(running_after=60)
    with pytest.raises(errors.RayJobTimeout, match="did not start in time"):
        run(operator(deferrable=deferrable, startup_timeout=0.3), context)
    assert dashboard.jobs[only_job(dashboard)].stopped is not None


@MODES
@pytest.mark.parametrize(
    ("codes", "raised"),
    [
        ({"skip_on_exit_code": 99}, AirflowSkipException),
        ({"fail_on_exit_code": [3, 99]}, AirflowFailException),
        ({"skip_on_exit_code": [1], "fail_on_exit_code": 2}, errors.RayJobFailed),
    ],
)
def test_exit_codes_can_skip_or_fail_for_good(
    dashboard: FakeDashboard, context: Any, deferrable: bool, codes: Any, raised: type[Exception]
) -> None:
    dashboard.default_outcome = Outcome(status="FAILED", exit_code=99)
    with pytest.raises(raised, match="driver_exit_code=99"):
        run(operator(deferrable=deferrable, **codes), context)


def test_without_durable_each_attempt_submits(dashboard: FakeDashboard, attempts: Attempts) -> None:
    for number in (1, 2):
        operator(durable=False).execute(attempts.context(try_number=number))
    assert len(dashboard.jobs) == 2
    assert attempts.store == {}


def test_a_job_can_survive_the_kill_of_its_task(dashboard: FakeDashboard, context: Any, task_log: TaskLog) -> None:
    dashboard.default_outcome = Outcome(ends_after=None)
    RayHook().submit_job("true", submission_id="mine", metadata={NONCE_KEY: "n1"})
    task = operator(cancel_on_kill=False)
    task._begin(context).job = StoppableJob(RayHook(), "mine", "n1")
    task.on_kill()
    assert dashboard.jobs[only_job(dashboard)].status == "RUNNING"
    assert "keeps running: cancel_on_kill is False" in task_log.lines[-1]


@pytest.mark.parametrize("given", [None, {"env_vars": {"A": "b"}}])
def test_the_time_for_an_orderly_stop_is_handed_to_ray(dashboard: FakeDashboard, context: Any, given: Any) -> None:
    operator(stop_grace=timedelta(seconds=19.5), runtime_env=given).execute(context)
    env_vars = dashboard.jobs[only_job(dashboard)].body["runtime_env"]["env_vars"]
    assert env_vars == {**((given or {}).get("env_vars") or {}), "RAY_JOB_STOP_WAIT_TIME_S": "20"}


def test_without_durable_a_retry_has_an_id_of_its_own(dashboard: FakeDashboard, attempts: Attempts) -> None:
    dashboard.default_outcome = Outcome(status="FAILED")
    for number in (1, 2):
        with pytest.raises(errors.RayJobFailed):
            operator(durable=False, submission_id="nightly").execute(attempts.context(try_number=number))
    assert len(dashboard.jobs) == 2


def test_without_a_store_a_job_that_no_retry_would_find_is_stopped(dashboard: FakeDashboard, context: Any) -> None:
    del context["task_state_store"]
    dashboard.default_outcome = Outcome(ends_after=None)
    dashboard.fail(418, method="GET", path="/api/jobs/nightly")
    with pytest.raises(errors.RayRequestRefused):
        operator(submission_id="nightly").execute(context)
    assert dashboard.jobs["nightly"].status == "STOPPED"
    dashboard.default_outcome = Outcome()
    context["ti"].try_number = 2
    assert operator(submission_id="nightly").execute(context)["submission_id"].startswith("nightly-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skip_on_exit_code": "99"}, "skip_on_exit_code: got .*99"),
        ({"fail_on_exit_code": [1, None]}, "fail_on_exit_code: got .*None"),
        ({"fail_on_exit_code": None}, "fail_on_exit_code: got .*None"),
        ({"skip_on_exit_code": 1.0}, r"skip_on_exit_code: got .*1\.0"),
        ({"stop_grace": 0}, "stop_grace: got 0"),
        ({"startup_timeout": -1}, "startup_timeout: got -1"),
        ({"stop_grace": 5, "runtime_env": {"env_vars": ["A"]}}, "env_vars"),
    ],
)
def test_bad_values_are_named(dashboard: FakeDashboard, context: Any, arguments: Any, message: str) -> None:
    with pytest.raises(errors.RayConfigError, match=message):
        operator(**arguments).execute(context)
    assert not dashboard.jobs
