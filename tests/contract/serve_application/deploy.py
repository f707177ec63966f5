"""A job that deploys Serve applications and ends; the applications stay."""

from __future__ import annotations

import json
import sys

from fastapi import FastAPI
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

settings = json.loads(sys.argv[1])


@serve.deployment
class Answers:
    async def __call__(self, request: Request) -> Response:
        path = request.scope["path"].removeprefix(request.scope["root_path"])
        if path == "/error":
            raise RuntimeError("as the test wants it")
        if path == "/text":
            return PlainTextResponse("plain words")
        if path == "/big":
            return JSONResponse("x" * (settings["big"] - 2))
        body = await request.body()
        seen = {"method": request.method, "path": path, "query": dict(request.query_params)}
        return JSONResponse({**seen, "headers": dict(request.headers), "body": json.loads(body) if body else None})


app = FastAPI()


@serve.deployment(ray_actor_options={"num_cpus": 0})
@serve.ingress(app)
class WithFastAPI:
    @app.post("/")
    async def root(self) -> dict[str, bool]:
        return {"fastapi": True}


# root_path is meant for a proxy in front of Serve. The test is that nothing changes without one.
serve.start(http_options={"host": "127.0.0.1", "port": settings["port"], "root_path": "/base"})
name, route_prefix = settings["name"], settings["route_prefix"]
serve.run(Answers.bind(), name=name, route_prefix=route_prefix)  # type: ignore[attr-defined]
serve.run(
    WithFastAPI.bind(),  # type: ignore[attr-defined]
    name=f"{name}-fastapi",
    route_prefix=f"{route_prefix}-fastapi",
)
