"""Deploys one Serve application and deletes it again, without touching any other."""

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
    """Serve the output while the body runs, then delete this application and no other.

    :param parameters: name, route and port of the application.
    :param output_ref: the output as encoded JSON.
    :raises RuntimeError: Serve is already running on another port, or the name or the route is in use.
    """
    start_serve(parameters)
    if parameters.application in serve.status().applications:
        raise RuntimeError(f"serve-parameters.application {parameters.application} is already in use on this cluster")
    try:
        yield run_application(parameters, output_ref)
    finally:
        serve.delete(parameters.application)


def start_serve(parameters: ServeParameters) -> None:
    """Start Serve, or use the running instance if it listens on the port that this run asks for."""
    options: dict[str, Any] = {"port": parameters.port}
    if parameters.host is not None:
        options["host"] = parameters.host
    try:
        serve.start(http_options=options)
    except ValueError:
        # Serve looks for a controller before it creates one; another run may create it in between (Ray 2.49, 2.60).
        if _get_global_client(raise_if_no_controller_running=False) is None:
            raise
    # A running Serve ignores the options; only its client knows which options are in effect.
    port = _get_global_client().http_config.port  # type: ignore[union-attr]
    if port != parameters.port:
        raise RuntimeError(
            f"serve-parameters.port is {parameters.port}, but Serve is already running on port {port} of this cluster"
        )


def run_application(parameters: ServeParameters, output_ref: ray.ObjectRef[bytes]) -> DeploymentHandle[Requests]:
    """Deploy the application and wait until it answers; Serve itself rejects a route that is already taken."""
    application = Requests.bind(output_ref)
    try:
        return serve.run(application, name=parameters.application, route_prefix=parameters.route_prefix)
    except RayServeException as error:
        raise RuntimeError(f"Serve rejected serve-parameters.route-prefix {parameters.route_prefix}") from error
