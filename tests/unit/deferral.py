"""What Airflow does between a deferral and the next worker phase, in one process."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.module_loading import import_string
from airflow.sdk.serde import deserialize, serialize
from airflow.triggers.base import BaseTrigger


def rebuilt(trigger: BaseTrigger) -> BaseTrigger:
    """The trigger as the triggerer gets it: from its class path and serialised arguments."""
    path, given = trigger.serialize()
    arguments: Any = deserialize(serialize(given))
    made: BaseTrigger = import_string(path)(**arguments)
    return made


async def first_event(trigger: BaseTrigger) -> Any:
    async for event in trigger.run():
        return deserialize(serialize(event.payload))
    raise AssertionError("The trigger ended without an event.")


def resume(operator: BaseOperator, context: Any, deferred: TaskDeferred) -> Any:
    """Run the trigger that an operator has deferred to, and the operator's next method with the trigger's event."""
    event = asyncio.run(first_event(rebuilt(deferred.trigger)))
    return getattr(operator, deferred.method_name)(context, event=event, **(deferred.kwargs or {}))


def run_deferred(operator: BaseOperator, context: Any) -> Any:
    """Execute an operator that must defer, run its trigger and resume, as often as it defers."""
    step, has_deferred = partial(operator.execute, context), False
    while True:
        try:
            result = step()
        except TaskDeferred as deferred:
            step, has_deferred = partial(resume, operator, context, deferred), True
        else:
            assert has_deferred, "The operator did not defer."
            return result
