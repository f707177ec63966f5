"""The Serve application that hands out the run's output."""

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
    """Answers with the output until somebody releases the run."""

    def __init__(self, output_ref: ray.ObjectRef[bytes]) -> None:
        self.output: bytes = ray.get(output_ref)
        self.released = asyncio.Event()

    @app.get("/output")
    async def output_route(self) -> Response:
        """The summaries as {"output": [...]}, sent as they were encoded."""
        return Response(self.output, media_type="application/json")

    @app.post("/release")
    async def release_route(self) -> dict[str, bool]:
        """End the driver's wait."""
        self.released.set()
        return {"released": True}

    async def wait_for_release(self, seconds: float) -> bool:
        """Wait until the run is released; False if that took longer than this many seconds."""
        try:
            await asyncio.wait_for(self.released.wait(), seconds)
        except asyncio.TimeoutError:  # noqa: UP041  another class than TimeoutError up to Python 3.10
            return False
        return True
