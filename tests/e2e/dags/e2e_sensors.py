"""Dags for sensors: jobs that one task submits and another waits for."""

from __future__ import annotations

from airflow.sdk import chain, dag
from e2e_settings import DEFAULTS, FAIL, RETRIED, until

from airflow_provider_ray.operators.job import RaySubmitJobOperator
from airflow_provider_ray.sensors.job import RayJobSensor


@dag(**DEFAULTS)
def e2e_mapped() -> None:
    """One job per cluster, each waited for by its own sensor, which takes the XCom as it is."""
    submit = RaySubmitJobOperator.partial(task_id="submit", entrypoint="echo", wait_for_completion=False).expand_kwargs(
        [{"conn_id": f"ray_local_{number}", "parameters": {"number": number}} for number in (1, 2, 3)]
    )
    RayJobSensor.partial(task_id="wait", deferrable=True, poke_interval=2, timeout=300, **RETRIED).expand_kwargs(
        submit.output
    )


@dag(**DEFAULTS)
def e2e_sensors() -> None:
    """A job that succeeds and one that fails, waited for in several ways."""
    good = RaySubmitJobOperator(
        task_id="good",
        conn_id="ray_local_2",
        entrypoint="sleep 3; echo it went well",
        metadata={"purpose": "{{ run_id }}"},
        wait_for_completion=False,
    )
    bad = RaySubmitJobOperator(
        task_id="bad",
        conn_id="ray_local_2",
        entrypoint=["python", "-c", FAIL],
        wait_for_completion=False,
    )
    RayJobSensor(
        task_id="by_metadata",
        conn_id="ray_local_2",
        metadata={"purpose": "{{ run_id }}"},
        mode="reschedule",
        poke_interval=4,
        fetch_logs=True,
        **RETRIED,
    )
    soft = RayJobSensor(
        task_id="soft",
        conn_id="ray_local_2",
        submission_id=bad.output["submission_id"],  # type: ignore[index]
        soft_fail=True,
        poke_interval=2,
    )
    hard = RayJobSensor(
        task_id="hard",
        conn_id="ray_local_2",
        submission_id=bad.output["submission_id"],  # type: ignore[index]
        deferrable=True,
        poke_interval=2,
        timeout=120,
        **RETRIED,
    )
    RayJobSensor(
        task_id="late",
        conn_id="ray_local_2",
        metadata={"purpose": "nobody's"},
        deferrable=True,
        poke_interval=2,
        timeout=5,
        **RETRIED,
    )
    chain(until("by_metadata", "up_for_reschedule"), good)
    chain(bad, [soft, hard])


e2e_mapped()
e2e_sensors()
