"""A small client of Airflow's REST API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

UNFINISHED = ("queued", "running")
TIMEOUT_SECONDS = 60.0


class ApiError(Exception):
    """An API request failed.

    :param status: HTTP status of the answer.
    """

    def __init__(self, request: str, status: int, detail: str) -> None:
        super().__init__(f"{request}: {status} {detail}")
        self.status = status


class AirflowApi:
    """The API calls that the demo and the tests need, one method each.

    :param url: address of the API server.
    :param user: user name to log in with.
    :param password: the user's password.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        self._http = httpx.Client(base_url=f"{url}/api/v2/", trust_env=False, timeout=TIMEOUT_SECONDS)
        answer = self._http.post(f"{url}/auth/token", json={"username": user, "password": password})
        self._http.headers["Authorization"] = f"Bearer {_decoded(answer)['access_token']}"

    @staticmethod
    def health(url: str) -> dict[str, Any]:
        """Return the state of the components; needs no login.

        :raises OSError: when the API server does not answer.
        """
        try:
            answer = httpx.get(f"{url}/api/v2/monitor/health", trust_env=False, timeout=10)
        except httpx.TransportError as error:
            raise OSError(str(error)) from error
        health: dict[str, Any] = _decoded(answer)
        return health

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, method: str, path: str, **request: Any) -> Any:
        """Send a request and return the decoded answer.

        :param path: path below ``/api/v2/``.
        :param request: ``json``, ``params`` or ``headers``.
        :raises ApiError: when the answer has an error status.
        """
        return _decoded(self._http.request(method, path, **request))

    def page(self, path: str) -> httpx.Response:
        """Return the response of a page of the API server.

        :param path: path relative to the server's root.
        """
        return self._http.get(str(self._http.base_url.join(f"../../{path}")))

    def add_connections(self, connections: Mapping[str, Mapping[str, Any]]) -> None:
        """Add connections to Airflow's database.

        :param connections: fields by connection id, in the format of ``airflow connections import``.
        """
        for conn_id, fields in connections.items():
            extra = fields.get("extra")
            text = extra if extra is None or isinstance(extra, str) else json.dumps(extra)
            self.call("POST", "connections", json={"connection_id": conn_id, **fields, "extra": text})

    def dag_ids(self) -> set[str]:
        """Return the ids of the Dags that the Dag processor has stored."""
        return {dag["dag_id"] for dag in self.call("GET", "dags", params={"limit": 100})["dags"]}

    def import_errors(self) -> dict[str, str]:
        """Return the stack traces of import errors by file name."""
        errors = self.call("GET", "importErrors")["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in errors}

    def unpause(self, dag_id: str) -> None:
        """Unpause a Dag."""
        self.call("PATCH", f"dags/{dag_id}", json={"is_paused": False})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Trigger a run and return its run_id."""
        body = {"logical_date": None, "conf": dict(conf or {})}
        run_id: str = self.call("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"]
        return run_id

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return a run with its state, conf and dates."""
        found: dict[str, Any] = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")
        return found

    def task_instances(self, dag_id: str, run_id: str, **filters: str) -> list[dict[str, Any]]:
        """Return the first hundred task instances of a run; mapped instances are listed individually."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        found: list[dict[str, Any]] = self.call("GET", path, params={"limit": 100, **filters})["task_instances"]
        return found

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Mark a task instance as failed, successful or skipped."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        self.call("PATCH", path, json={"new_state": state})

    def delete_task(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Delete a task instance."""
        self.call("DELETE", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")

    def forget(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Delete everything that a task has stored in its task state store."""
        self.call("DELETE", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/state-store")

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Clear a task, so that it runs again."""
        body = {"dry_run": False, "only_failed": False, "dag_run_id": run_id, "task_ids": [task_id]}
        self.call("POST", f"dags/{dag_id}/clearTaskInstances", json=body)

    def xcom(self, dag_id: str, run_id: str, task_id: str, *, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the value of an XCom."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        params = {"map_index": map_index, "deserialize": False, "stringify": False}
        return self.call("GET", path, params=params)["value"]

    def links(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> dict[str, str | None]:
        """Return the extra links of a task instance by name."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/links"
        found: dict[str, str | None] = self.call("GET", path, params={"map_index": map_index})["extra_links"]
        return found

    def log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1) -> list[str]:
        """Return the log messages of one attempt of a task, including the text of errors."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        params = {"map_index": map_index, "full_content": True}
        content = self.call("GET", path, params=params, headers={"Accept": "application/json"})["content"]
        return [line for entry in content for line in _messages(entry)]


def _messages(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
        return
    yield str(entry.get("event", ""))
    for error in entry.get("error_detail") or ():
        yield f"{error.get('exc_type')}: {error.get('exc_value')}"


def _decoded(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise ApiError(f"{answer.request.method} {answer.request.url}", answer.status_code, answer.text)
    return answer.json() if answer.content else None
