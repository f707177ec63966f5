"""Bringing one Serve application up and taking that one, and nothing else, down again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

from serve.requests import Requests

if TYPE_CHECKING:
    from functions.parameters import ServeParameters
    from ray.serve.handle import DeploymentHandle


@contextmanager
def served(parameters: ServeParameters, output_ref: ray.ObjectRef[bytes]) -> Iterator[DeploymentHandle[Requests]]:
    """Serve the output while the body runs, then delete the application; others are never touched.

    :param parameters: name, route and port of the application.
    :param output_ref: the output as encoded JSON.
    :raises RuntimeError: when Serve listens elsewhere already, or the name or the route is in use.
    """
    start_serve(parameters)
    if parameters.application in serve.status().applications:
        raise RuntimeError(f"serve-parameters.application {parameters.application} is in use on this cluster")
    try:
        yield run_application(parameters, output_ref)
    finally:
        serve.delete(parameters.application)


def start_serve(parameters: ServeParameters) -> None:
    """Start Serve, or join a running one if it listens where this run wants to be reached."""
    options: dict[str, Any] = {"port": parameters.port}
    if parameters.host is not None:
        options["host"] = parameters.host
    try:
        serve.start(http_options=options)
    except ValueError:
        # Serve looks for a controller before it makes one, and another run may be faster in between (Ray 2.49, 2.60).
        if _get_global_client(raise_if_no_controller_running=False) is None:
            raise
    # A running Serve ignores the options, and only its client knows which ones are in force.
    port = _get_global_client().http_config.port  # type: ignore[union-attr]
    if port != parameters.port:
        raise RuntimeError(
            f"serve-parameters.port is {parameters.port}, but Serve already runs on this cluster with port {port}"
        )


def run_application(parameters: ServeParameters, output_ref: ray.ObjectRef[bytes]) -> DeploymentHandle[Requests]:
    """Deploy the application and wait until it answers; Serve itself refuses a route that another one has."""
    application = Requests.bind(output_ref)
    try:
        return serve.run(application, name=parameters.application, route_prefix=parameters.route_prefix)
    except RayServeException as error:
        raise RuntimeError(f"Serve refused serve-parameters.route-prefix {parameters.route_prefix}") from error
