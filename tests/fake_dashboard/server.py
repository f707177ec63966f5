"""The servers: a dashboard and a Serve proxy on loopback, in a thread of their own."""

from __future__ import annotations

import asyncio
import base64
import ssl
import threading
from typing import Any, Literal, Self

from aiohttp import web

from tests.fake_dashboard.dashboard import Dashboard
from tests.fake_dashboard.state import FakeCluster, Fault, Handler, Recorded

BODY_LIMIT_BYTES = 100 * 1024 * 1024
OPEN_PATHS = ("/", "/api/authentication_mode")


class FakeDashboard(FakeCluster):
    """A scripted cluster; use it as a context manager.

    :param ray_version: what the cluster says it is; old ones refuse what they do not know.
    :param token: bearer token that the dashboard demands.
    :param proxy_login: ``user:password`` that a proxy in front of the dashboard demands, keeping the header to itself.
    :param prefix: path below which the dashboard lives.
    :param shared_serve_port: port of Serve, which others may take as well, as real clusters do; 0 for any free one.
    :param tls: makes the dashboard (not Serve) speak HTTPS.
    """

    def __init__(
        self,
        *,
        ray_version: str = "2.60.0",
        token: str | None = None,
        proxy_login: str | None = None,
        prefix: str = "",
        tls: ssl.SSLContext | None = None,
        shared_serve_port: int | None = None,
    ) -> None:
        super().__init__(ray_version, token)
        self.prefix = prefix
        self.tls = tls
        self.proxy_login = proxy_login
        self._shared_serve_port = shared_serve_port
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._late: list[asyncio.Task[None]] = []
        self._thread = threading.Thread(target=self._run, name="fake-dashboard", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{self.prefix}"

    @property
    def serve_url(self) -> str:
        return f"http://127.0.0.1:{self.serve_port}"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._answer_until_stopped())

    async def _answer_until_stopped(self) -> None:
        dashboard = web.Application(
            middlewares=[self._record("dashboard"), self._strike, self._guard],
            client_max_size=BODY_LIMIT_BYTES,
        )
        dashboard.add_routes(Dashboard(self).routes(self.prefix))
        proxy = web.Application(middlewares=[self._record("serve"), self._strike])
        proxy.router.add_route("*", "/{path:.*}", self._proxy)
        runners = [web.AppRunner(app, shutdown_timeout=0.1, access_log=None) for app in (dashboard, proxy)]
        self.port = await _listen(runners[0], self.tls)
        self.serve_port = await _listen(runners[1], None, self._shared_serve_port)
        self._ready.set()
        await self._stop.wait()
        for late in self._late:
            late.cancel()
        for runner in runners:
            await runner.cleanup()

    def _record(self, server: Literal["dashboard", "serve"]) -> Any:
        @web.middleware
        async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
            body, query = await request.read(), dict(request.query)
            seen = Recorded(server, request.method, request.path, query, request.headers.copy(), body)
            self.requests.append(seen)
            return await handler(request)

        return record

    @web.middleware
    async def _strike(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        fault = next((each for each in self.faults if _hits(each, request)), None)
        if fault is None:
            return await handler(request)
        fault.times -= 1
        if fault.handled:
            await handler(request)
        if fault.late:
            self._late.append(asyncio.create_task(_after(fault.late, handler, request)))
        if fault.kind == "hang":
            await self._stop.wait()
        if isinstance(fault.kind, int):
            return web.Response(status=fault.kind, text=fault.text, headers=fault.headers)
        if fault.kind == "cut":
            await _cut(request, await handler(request))
        _drop(request)
        return web.Response()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        browser = request.headers.get("User-Agent", "").startswith("Mozilla") or "Origin" in request.headers
        if request.method != "GET" and browser:
            return web.Response(status=405, text="Method Not Allowed for browser traffic.")
        if self.proxy_login and not _has_login(request, self.proxy_login):
            return web.Response(status=401, text="Who are you?", headers={"WWW-Authenticate": "Basic"})
        if self.token is None or request.path.removeprefix(self.prefix) in OPEN_PATHS:
            return await handler(request)
        given = request.headers.get("X-Ray-Authorization")
        if self.proxy_login is None:
            given = request.headers.get("Authorization") or given
        if not given:
            return web.Response(status=401, text="Unauthorized: Missing authentication token")
        if given != f"Bearer {self.token}":
            return web.Response(status=403, text="Forbidden: Invalid authentication token")
        return await handler(request)

    async def _proxy(self, request: web.Request) -> web.StreamResponse:
        running = [each for each in self.applications.values() if each.routed and each.status == "RUNNING"]
        routes = {each.route_prefix: each for each in running if each.route_prefix is not None}
        if request.path == "/-/routes":
            return web.json_response({route: each.name for route, each in routes.items()})
        if request.path == "/-/healthz":
            return web.Response(text="success")
        for route in sorted(routes, key=len, reverse=True):
            if f"{request.path}/".startswith(f"{route.rstrip('/')}/"):
                answer = routes[route].answer
                return await answer(request) if callable(answer) else web.json_response(answer)
        path = f"{self.serve_options['root_path']}{request.path}"
        return _plain(404, f"Path '{path}' not found. Ping http://.../-/routes for available routes.")


def _has_login(request: web.Request, login: str) -> bool:
    basic = f"Basic {base64.b64encode(login.encode()).decode()}"
    return request.headers.get("Authorization") == basic


async def _listen(runner: web.AppRunner, tls: ssl.SSLContext | None, shared_port: int | None = None) -> int:
    await runner.setup()
    site = web.TCPSite(
        runner, "127.0.0.1", shared_port or 0, ssl_context=tls, reuse_port=True if shared_port is not None else None
    )
    await site.start()
    port: int = runner.addresses[0][1]
    return port


def _hits(fault: Fault, request: web.Request) -> bool:
    asked = fault.method in (None, request.method) and request.path.startswith(fault.path)
    return asked and fault.times > 0


async def _after(seconds: float, handler: Handler, request: web.Request) -> None:
    await asyncio.sleep(seconds)
    await handler(request)


def _drop(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _cut(request: web.Request, whole: web.StreamResponse) -> None:
    """Announce more than is sent."""
    body = whole.body if isinstance(whole, web.Response) and isinstance(whole.body, bytes) else b""
    response = web.StreamResponse(headers={"Content-Length": str(len(body) + 1)})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])


def _plain(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text)
