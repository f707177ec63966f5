"""A Serve application whose routes answer in good and in bad ways, until it is released."""

from __future__ import annotations

import asyncio
import json
import sys

from fastapi import FastAPI, Response
from ray import serve

app = FastAPI()


@serve.deployment(ray_actor_options={"num_cpus": 0})
@serve.ingress(app)
class Answers:
    def __init__(self) -> None:
        self.released = asyncio.Event()

    @app.get("/json")
    async def json_route(self) -> dict[str, list[int]]:
        return {"numbers": [1, 2, 3]}

    @app.post("/echo")
    async def echo_route(self, body: dict[str, str]) -> dict[str, str]:
        return body

    @app.get("/text")
    async def text_route(self) -> Response:
        return Response("this is no JSON", media_type="text/plain")

    @app.get("/large")
    async def large_route(self) -> Response:
        return Response(json.dumps("x" * 5000), media_type="application/json")

    @app.get("/broken")
    async def broken_route(self) -> None:
        raise RuntimeError("broken on purpose")

    @app.post("/release")
    async def release_route(self) -> dict[str, bool]:
        self.released.set()
        return {"released": True}

    async def wait(self) -> None:
        await self.released.wait()


parameters = json.loads(sys.argv[1])
serve.start(http_options={"port": int(parameters["port"])})
handle = serve.run(Answers.bind(), name="answers", route_prefix="/answers")
handle.wait.remote().result()
serve.delete("answers")
