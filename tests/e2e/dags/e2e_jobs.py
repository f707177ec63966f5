"""Dags for jobs: how they are submitted, waited for, and how they end."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task
from e2e_settings import DEFAULTS, DEFERRED, FAIL

from airflow_provider_ray.jobs.retry_policy import RayRetryPolicy
from airflow_provider_ray.operators.job import RaySubmitJobOperator

TALK = """
import os, sys, time
print("first line", flush=True)
time.sleep(6)
print("argument", sys.argv[1])
print("greeting has", len(os.environ["GREETING"]), "letters")
"""
LAST_WORDS = "import time; time.sleep(8); [print('word', number) for number in range(3000)]"
SLEEP = ["python", "-c", "import time; print('sleeping', flush=True); time.sleep(900)"]
# Put together by a template: what is literal is in the serialized Dag.
HIDDEN = {"env_vars": {"GREETING": "{{ 'kept-from-' ~ 'the-database' }}"}}
AWKWARD = {"text": 'it\'s "quoted" $(touch /tmp/never) `id` \\ über\nnext line'}


@dag(**DEFAULTS)
def e2e_modes() -> None:
    """The same job waited for by a worker and by the triggerer, on different clusters."""
    for task_id, conn_id, mode in (("blocking", "ray_local_1", {}), ("deferred", "ray_local_3", DEFERRED)):
        RaySubmitJobOperator(
            task_id=task_id,
            conn_id=conn_id,
            entrypoint=["python", "-c", TALK],
            parameters=AWKWARD,
            runtime_env={"env_vars": {"GREETING": "kept-from-the-ui"}},
            metadata={"colour": "{{ dag.dag_id }}"},
            **{"poll_interval": 2, **mode},
        )


@dag(**DEFAULTS)
def e2e_last_words() -> None:
    """Most of what the job prints comes in its last moment."""
    for task_id, mode in (("blocking", {"poll_interval": 2}), ("deferred", DEFERRED)):
        RaySubmitJobOperator(task_id=task_id, conn_id="ray_local_1", entrypoint=["python", "-c", LAST_WORDS], **mode)


@dag(**DEFAULTS, params={"cluster": "ray_local_2"})
def e2e_templated() -> None:
    """The cluster chosen when the run is triggered."""
    RaySubmitJobOperator(
        task_id="chosen", conn_id="{{ params.cluster }}", entrypoint="echo {{ run_id }}", poll_interval=1
    )


@dag(**DEFAULTS)
def e2e_failing() -> None:
    """A driver that exits with 3, which no retry would mend."""
    for task_id, deferrable, retries in (("blocking", False, 2), ("deferred", True, 2)):
        RaySubmitJobOperator(
            task_id=task_id,
            conn_id="ray_local_1",
            entrypoint=["python", "-c", FAIL],
            deferrable=deferrable,
            poll_interval=2,
            retries=retries,
            retry_delay=timedelta(seconds=1),
            retry_policy=RayRetryPolicy(),
        )


@dag(**DEFAULTS)
def e2e_timeout() -> None:
    """Jobs that take too long."""
    for task_id, deferrable, retries in (("blocking", False, 0), ("deferred", True, 1)):
        RaySubmitJobOperator(
            task_id=task_id,
            conn_id="ray_local_1",
            entrypoint=SLEEP,
            deferrable=deferrable,
            poll_interval=2,
            timeout=10,
            retries=retries,
            retry_delay=timedelta(seconds=1),
        )


@dag(**DEFAULTS)
def e2e_killed_deferred() -> None:
    """A job whose task somebody fails while it is deferred."""
    RaySubmitJobOperator(task_id="sleep", conn_id="ray_local_3", entrypoint=SLEEP, runtime_env=HIDDEN, **DEFERRED)


@dag(**DEFAULTS)
def e2e_killed_running() -> None:
    """A job whose task somebody fails while it holds a worker."""
    RaySubmitJobOperator(task_id="sleep", conn_id="ray_local_1", entrypoint=SLEEP, poll_interval=2)


@dag(**DEFAULTS)
def e2e_cleared() -> None:
    """A job whose task somebody clears while it is deferred."""
    RaySubmitJobOperator(task_id="sleep", conn_id="ray_local_2", entrypoint=["sleep", "15"], **DEFERRED)


@dag(**DEFAULTS)
def e2e_slot() -> None:
    """Two tasks that share the only slot of a pool."""
    waiting = RaySubmitJobOperator(
        task_id="waiting",
        conn_id="ray_local_1",
        entrypoint=["sleep", "25"],
        pool="single",
        priority_weight=10,
        **DEFERRED,
    )

    @task(pool="single")
    def trivial() -> str:
        return "done"

    [waiting, trivial()]


@dag(**DEFAULTS)
def e2e_bad_connections() -> None:
    """Connections that cannot work."""
    for conn_id in ("no_such_connection", "not_ray", "not_a_dashboard", "wrong_token"):
        RaySubmitJobOperator(task_id=conn_id, conn_id=conn_id, entrypoint="true", retries=0)


e2e_modes()
e2e_last_words()
e2e_templated()
e2e_failing()
e2e_timeout()
e2e_killed_deferred()
e2e_killed_running()
e2e_cleared()
e2e_slot()
e2e_bad_connections()
