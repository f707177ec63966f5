"""The Serve application that serves the run's output."""

from __future__ import annotations

import asyncio

import ray
from fastapi import FastAPI, Response
from ray import serve

app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@serve.deployment(
    num_replicas=1,
    ray_actor_options={"num_cpus": 0.01},
    graceful_shutdown_wait_loop_s=0.1,
    graceful_shutdown_timeout_s=2,
)
@serve.ingress(app)
class Requests:
    """Serves the output until the run is released."""

    def __init__(self, output_ref: ray.ObjectRef[bytes]) -> None:
        self.output: bytes = ray.get(output_ref)
        self.released = asyncio.Event()

    @app.get("/output")
    async def output_route(self) -> Response:
        """Return the summaries as {"output": [...]}, exactly as encoded by the driver."""
        return Response(self.output, media_type="application/json")

    @app.post("/release")
    async def release_route(self) -> dict[str, bool]:
        """Tell the driver to stop waiting."""
        self.released.set()
        return {"released": True}

    async def wait_for_release(self, seconds: float) -> bool:
        """Wait until the run is released; return False if that takes longer than the given seconds."""
        try:
            await asyncio.wait_for(self.released.wait(), seconds)
        except asyncio.TimeoutError:  # noqa: UP041  not an alias of TimeoutError before Python 3.11
            return False
        return True
