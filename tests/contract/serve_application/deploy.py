"""A job that deploys a Serve application and ends; the application stays."""

from __future__ import annotations

import json
import sys

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

settings = json.loads(sys.argv[1])


@serve.deployment
class Answers:
    async def __call__(self, request: Request) -> Response:
        path = request.url.path.removeprefix(settings["route_prefix"])
        if path == "/error":
            raise RuntimeError("as the test wants it")
        if path == "/text":
            return PlainTextResponse("plain words")
        if path == "/big":
            return JSONResponse("x" * (settings["big"] - 2))
        body = await request.body()
        seen = {"method": request.method, "path": path, "query": dict(request.query_params)}
        return JSONResponse({**seen, "headers": dict(request.headers), "body": json.loads(body) if body else None})


serve.start(http_options={"host": "127.0.0.1", "port": settings["port"]})
application = Answers.bind()  # type: ignore[attr-defined]
serve.run(application, name=settings["name"], route_prefix=settings["route_prefix"])
