"""Divide tuples among tasks and actors, summarize them, and serve the summaries for a while.

Run as a Ray job: python parallel_processing.py '<parameters as JSON>'
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import ray
from actors.provider import Provider
from functions.division import division_round_robin
from functions.parameters import JobParameters, ParameterError, read_parameters
from tasks.collector import collector
from tasks.preprocess import preprocess

if TYPE_CHECKING:
    from ray.actor import ActorHandle


def parallel_processing(parameters: JobParameters) -> None:
    """Process the tuples, then serve the output until it is released or the time is up.

    :param parameters: what to generate, with how many processes, and where to serve the output.
    """
    print("Running parallel processing")
    ray.init()
    actor_refs = create_actors(parameters)
    summaries = process_tuples(parameters, actor_refs)
    # Keep only the first actor: it reserves the application's name.
    del actor_refs[1:]
    output_ref = ray.put(b'{"output": [' + ", ".join(summaries).encode() + b"]}")
    print("Starting Serve")
    # Importing Serve takes longer than processing a million tuples, so it is imported once there is something to serve.
    from serve.application import served

    with served(parameters.serve, output_ref) as application:
        print("Waiting for requests")
        application.wait_for_release.remote(parameters.serve.linger_seconds).result()
        print("Stopping Serve")


def create_actors(parameters: JobParameters) -> list[ActorHandle[Provider]]:
    """Start the actors first, so that their processes start up while the driver generates tuples.

    The first actor takes the application's name and holds it while the driver is alive, so no other run can use it.
    """
    number, application = parameters.process.actor_number, parameters.serve.application
    print(f"Creating {number} provider actors")
    try:
        first = Provider.options(name=application, namespace="processing").remote(parameters.data)
    except ValueError as error:
        raise RuntimeError(f"serve-parameters.application {application} is already in use by another run") from error
    return [first, *(Provider.remote(parameters.data) for _ in range(number - 1))]


def process_tuples(parameters: JobParameters, actor_refs: list[ActorHandle[Provider]]) -> list[str]:
    """Run both stages and return each worker's summaries, in worker order."""
    data, worker_number = parameters.data, parameters.process.worker_number
    print(f"Generating file batches for {worker_number} workers")
    file_batches = division_round_robin(data, worker_number)
    print("Storing batches")
    shares = [(ray.put(file_batch), len(file_batch)) for file_batch in file_batches]
    # Workers and actors are paired round robin, and numbered from 1 in the output.
    pairs = [(worker + 1, worker % len(actor_refs) + 1) for worker in range(worker_number)]

    print("Starting preprocess tasks")
    task_1_refs = {
        preprocess.remote(worker, actor, actor_refs[actor - 1], data, share): (worker, actor)
        for (worker, actor), share in zip(pairs, shares, strict=True)
    }
    print("Waiting for preprocess tasks and starting collector tasks")
    task_2_refs = {}
    for ref in as_completed(task_1_refs):
        worker, actor = task_1_refs[ref]
        task_2_refs[collector.remote(worker, actor, actor_refs[actor - 1], ref)] = worker
    print("Waiting for collector tasks")
    summaries = {task_2_refs[ref]: ray.get(ref) for ref in as_completed(task_2_refs)}
    return [summaries[worker] for worker, _ in pairs]


def as_completed(refs: Iterable[ray.ObjectRef[Any]]) -> Iterator[ray.ObjectRef[Any]]:
    """Yield the references one by one, as their values become ready."""
    pending = list(refs)
    while pending:
        (done,), pending = ray.wait(pending)
        yield done


def main(arguments: list[str]) -> int:
    """Run the job and return its exit code: 0, or 2 for invalid parameters; failures raise."""
    try:
        parameters = read_parameters(arguments)
    except ParameterError as error:
        print(f"Parameter error: {error}", file=sys.stderr)
        return 2
    parallel_processing(parameters)
    print("Job success:True")
    return 0


if __name__ == "__main__":
    print("Starting Ray job")
    print(f"Python version is:{sys.version}")
    print(f"Ray version is:{version('ray')}")
    print(f"NumPy version is:{version('numpy')}")
    sys.exit(main(sys.argv[1:]))
