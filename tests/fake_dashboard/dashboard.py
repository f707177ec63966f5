"""The dashboard's REST API, answering as Ray 2.49-2.60 does."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from tests.fake_dashboard.state import NODE_ID, TERMINAL, FakeCluster, Job, Outcome
from tests.fake_dashboard.status import status_text

SUBMIT_KEYS = {"entrypoint", "submission_id", "job_id", "runtime_env", "metadata"} | {
    f"entrypoint_{name}" for name in ("num_cpus", "num_gpus", "memory", "resources")
}
# The head sends all of them on to its agent, which takes less than the head.
AGENT_KEYS = (*sorted(SUBMIT_KEYS), "entrypoint_label_selector")
AGENT_BODY_LIMIT_BYTES = 1024 * 1024
LABEL_KEY = re.compile(r"[A-Za-z0-9_./-]+")
INFO_LINE = "2026-11-20 12:00:00,000\tINFO job_manager.py:581 -- Runtime env is setting up.\n"


class Dashboard:
    """Handlers of the dashboard's routes."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster

    def routes(self, prefix: str) -> list[web.RouteDef]:
        """The routes below a path prefix; as in Ray, a missing trailing slash is a 404."""
        jobs, package = f"{prefix}/api/jobs/", f"{prefix}/api/packages/{{protocol}}/{{name}}"
        return [
            web.get(f"{prefix}/", self._page),
            web.get(f"{prefix}/api/version", self._version),
            web.get(f"{prefix}/api/authentication_mode", self._authentication_mode),
            web.post(jobs, self._submit),
            web.get(jobs, self._list_jobs),
            web.get(jobs + "{id}", self._get_job),
            web.delete(jobs + "{id}", self._delete_job),
            web.post(jobs + "{id}/stop", self._stop_job),
            web.get(package, self._get_package),
            web.put(package, self._put_package),
            web.get(f"{prefix}/api/v0/logs/file", self._log_file),
            web.get(f"{prefix}/api/v0/jobs", self._select_jobs),
            web.get(f"{prefix}/api/v0/nodes", self._list_nodes),
            web.get(f"{prefix}/api/cluster_status", self._cluster_status),
            web.get(f"{prefix}/api/v0/cluster_metadata", self._cluster_metadata),
            web.get(f"{prefix}/api/serve/applications/", self._serve_details),
        ]

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text="<html>Ray Dashboard</html>", content_type="text/html")

    async def _version(self, _: web.Request) -> web.Response:
        version = {
            "version": "4",
            "ray_version": self._cluster.ray_version,
            "ray_commit": "0",
            "session_name": self._cluster.session_name,
        }
        return web.json_response(version)

    async def _authentication_mode(self, _: web.Request) -> web.Response:
        if self._cluster.is_older_than(2, 52):
            return _plain(404, "404: Not Found")
        return web.json_response({"authentication_mode": "token" if self._cluster.token else "disabled"})

    async def _submit(self, request: web.Request) -> web.Response:
        body = await request.json()
        if len(json.dumps(dict.fromkeys(AGENT_KEYS) | body)) > AGENT_BODY_LIMIT_BYTES:
            return _wrapped(500, "aiohttp.web_exceptions.HTTPRequestEntityTooLarge: Request Entity Too Large")
        old = self._cluster.is_older_than(2, 54)
        known = SUBMIT_KEYS | (set() if old else {"entrypoint_label_selector"})
        if unknown := sorted(set(body) - known):
            reason = f"JobSubmitRequest.__init__() got an unexpected keyword argument {unknown[0]!r}"
            return _traceback(400, f"TypeError: {reason}")
        if not isinstance(body.get("entrypoint"), str):
            return _traceback(400, f"TypeError: entrypoint must be a string, got {type(body.get('entrypoint'))}")
        if not all(LABEL_KEY.fullmatch(key) for key in body.get("entrypoint_label_selector", {})):
            return _wrapped(400, "ValueError: Invalid label key name")
        name = body.setdefault("submission_id", f"raysubmit_{len(self._cluster.jobs)}")
        if name in self._cluster.jobs:
            reason = f"Job with submission_id {name} already exists. Please use a different submission_id."
            return _wrapped(400, f"ValueError: {reason}")
        preamble = INFO_LINE if old else INFO_LINE + "Running entrypoint for job {submission_id}: {entrypoint}\n"
        begin = preamble.format(**body).encode() if self._cluster.log_preamble else b""
        self._cluster.jobs[name] = Job(body, self._outcome(body), preamble=begin)
        return web.json_response({"job_id": name, "submission_id": name})

    def _outcome(self, body: Mapping[str, Any]) -> Outcome:
        working_dir = (body.get("runtime_env") or {}).get("working_dir") or ""
        if working_dir.startswith("gcs://") and working_dir not in self._cluster.packages:
            reason = f"runtime_env setup failed: Failed to download runtime_env file package {working_dir}"
            kind = "RUNTIME_ENV_SETUP_FAILURE"
            return Outcome(status="FAILED", exit_code=None, message=reason, error_type=kind, has_driver=False)
        return self._cluster.outcomes.get(body["submission_id"], self._cluster.default_outcome)

    async def _list_jobs(self, _: web.Request) -> web.Response:
        return web.json_response(self._all_jobs())

    async def _select_jobs(self, request: web.Request) -> web.Response:
        """The state API's list, with filters by status that exclude."""
        excluded = request.query.getall("filter_values", [])
        jobs = self._all_jobs()
        rows = [job for job in jobs if job["status"] not in excluded]
        return _listed(rows, len(jobs), int(request.query.get("limit", 100)))

    def _all_jobs(self) -> list[dict[str, Any]]:
        return [*map(self._details, self._cluster.jobs.values()), *self._cluster.drivers]

    def _details(self, job: Job) -> dict[str, Any]:
        return job.details(error_types=not self._cluster.is_older_than(2, 50))

    async def _get_job(self, request: web.Request) -> web.Response:
        job = self._cluster.jobs.get(request.match_info["id"])
        return _no_job(request) if job is None else web.json_response(self._details(job))

    async def _stop_job(self, request: web.Request) -> web.Response:
        job = self._cluster.jobs.get(request.match_info["id"])
        if job is None:
            return _no_job(request)
        if job.status in TERMINAL:
            return web.json_response({"stopped": False})
        if job.outcome.stop_after is not None and job.stopped is None:
            job.stopped = time.monotonic() + job.outcome.stop_after
        return web.json_response({"stopped": True})

    async def _delete_job(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if name not in self._cluster.jobs:
            return _no_job(request)
        if (status := self._cluster.jobs[name].status) not in TERMINAL:
            reason = f"Attempted to delete job '{name}', but it is in a non-terminal state {status}."
            return _wrapped(500, f"RuntimeError: {reason}")
        del self._cluster.jobs[name]
        return web.json_response({"deleted": True})

    async def _get_package(self, request: web.Request) -> web.Response:
        uri = _package_uri(request)
        return web.Response() if uri in self._cluster.packages else _plain(404, f"Package {uri} does not exist")

    async def _put_package(self, request: web.Request) -> web.Response:
        self._cluster.packages[_package_uri(request)] = await request.read()
        return web.Response()

    async def _log_file(self, request: web.Request) -> web.StreamResponse:
        name = request.query["filename"].removeprefix("job-driver-").removesuffix(".log")
        job = self._cluster.jobs.get(name)
        if job is None or request.query["node_id"] != NODE_ID or job.status == "PENDING":
            return _plain(500, f"A file is not found at: /tmp/ray/{request.query['filename']}")
        text, lines = job.log, int(request.query.get("lines", 1000))
        if lines >= 0:
            text = b"".join(text.splitlines(keepends=True)[-lines:])
        if not self._cluster.log_write_pause:
            return web.Response(body=text, content_type="text/plain")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        size = self._cluster.log_write_bytes
        for start in range(0, len(text), size):
            await response.write(text[start : start + size])
            await asyncio.sleep(self._cluster.log_write_pause)
        return response

    async def _list_nodes(self, request: web.Request) -> web.Response:
        nodes = self._cluster.nodes
        return _listed(nodes, len(nodes), int(request.query.get("limit", 100)))

    async def _cluster_status(self, _: web.Request) -> web.Response:
        data = {"clusterStatus": status_text(self._cluster)}
        return web.json_response({"result": True, "msg": "Got formatted cluster status.", "data": data})

    async def _cluster_metadata(self, _: web.Request) -> web.Response:
        data = {"rayVersion": self._cluster.ray_version, "pythonVersion": self._cluster.python_version}
        return web.json_response({"result": True, "msg": "", "data": data})

    async def _serve_details(self, _: web.Request) -> web.Response:
        details: dict[str, Any] = {
            "controller_info": {},
            "proxies": {},
            "applications": {},
            "target_capacity": None,
        }
        for each in self._cluster.applications.values():
            built = each.route_prefix if each.status == "RUNNING" else None
            details["http_options"] = {
                "host": "127.0.0.1",
                "port": self._cluster.serve_port,
                **self._cluster.serve_options,
            }
            details["applications"][each.name] = {
                "name": each.name,
                "route_prefix": built,
                "status": each.status,
                "message": each.message,
            }
        return web.json_response(details)


def _listed(rows: list[dict[str, Any]], total: int, limit: int) -> web.Response:
    """How the state API answers."""
    listed = {"total": total, "num_after_truncation": min(len(rows), limit), "result": rows[:limit]}
    return web.json_response({"result": True, "msg": "", "data": {"result": listed}})


def _package_uri(request: web.Request) -> str:
    return f"{request.match_info['protocol']}://{request.match_info['name']}"


def _plain(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text)


def _traceback(status: int, reason: str) -> web.Response:
    return _plain(
        status, f'Traceback (most recent call last):\n  File "job_head.py", line 1, in submit_job\n{reason}\n'
    )


def _wrapped(status: int, reason: str) -> web.Response:
    """What the head makes of an error of its agent."""
    inner = f'Traceback (most recent call last):\n  File "job_agent.py", line 1, in submit_job\n{reason}\n'
    return _traceback(500, f"RuntimeError: Request failed with status code {status}: {inner}.")


def _no_job(request: web.Request) -> web.Response:
    return _plain(404, f"Job {request.match_info['id']} does not exist")
