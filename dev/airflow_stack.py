"""A real Airflow on this host as child processes, with LocalExecutor, its own home and ports, and SQLite by default."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from configparser import RawConfigParser
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from cryptography.fernet import Fernet

from airflow_provider_ray.local.ports import is_free
from dev.airflow_api import AirflowApi
from dev.airflow_processes import MARKER, StackError, processes, stop

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
HEALTH_NAMES = ("metadatabase", "scheduler", "dag_processor", "triggerer")
NOT_INHERITED = ("AIRFLOW", "RAY_", "PYTHON")
FIRST_API_PORT, FIRST_LOG_PORT = 8080, 8793
USER = "admin"
CONFIG_FILE, PASSWORD_FILE = "airflow.cfg", "simple_auth_manager_passwords.json.generated"
LOG_LINES = 20


@dataclass(frozen=True)
class _Ports:
    api: int
    worker_log: int
    trigger_log: int


class AirflowStack:
    """Airflow's four components, started in an empty home directory and stopped until no process is left.

    The processes are recognized by a marker in their environment; no other process is ever signaled.

    :param home: AIRFLOW_HOME and HOME of all components; created if missing.
    :param bundles: Dag folders by bundle name.
    :param environment: additional environment variables.
    :param components: components to start; without a scheduler no task runs.
    :param path: base path of the UI and the REST API, such as ``/airflow``.
    """

    def __init__(
        self,
        home: Path,
        bundles: Mapping[str, Path],
        environment: Mapping[str, str] | None = None,
        *,
        components: Sequence[str] = COMPONENTS,
        path: str = "",
    ) -> None:
        self.home = home.absolute()
        self.log_folder = self.home / "logs"
        self._bundles = dict(bundles)
        self._environment = dict(environment or {})
        self._wanted = components
        self._path = path
        self._ports = _free_ports()
        self._password = secrets.token_urlsafe(12)
        self._components: dict[str, subprocess.Popen[bytes]] = {}
        self._api: AirflowApi | None = None

    @property
    def url(self) -> str:
        """Address of the UI and the REST API."""
        return f"http://127.0.0.1:{self._ports.api}{self._path}"

    @property
    def password(self) -> str:
        """Password of the user ``admin``."""
        return self._password

    @property
    def api(self) -> AirflowApi:
        """A REST API client logged in as ``admin``; available after ``wait_until_healthy``."""
        if self._api is None:
            self._api = AirflowApi(self.url, USER, self._password)
        return self._api

    def start(self) -> None:
        """Create the database and start the components, without waiting for them.

        :raises StackError: when the database cannot be created, or this home is in use.
        """
        if processes(self.home):
            raise StackError(f"an Airflow with home {self.home} is already running")
        self.log_folder.mkdir(parents=True, exist_ok=True)
        _write_private(self.home / PASSWORD_FILE, json.dumps({USER: self._password}))
        _write_private(self.home / CONFIG_FILE, self._config())
        self.command("db", "migrate")
        for name in self._wanted:
            self._components[name] = self._spawn(name)

    def wait_until_healthy(self, timeout: float = 300) -> None:
        """Wait until all components report that they are healthy.

        :raises StackError: when one has exited, with the end of its log, or is not healthy after ``timeout`` seconds.
        """
        self._wait(self._unhealthy, timeout)

    def wait_for_dags(self, dag_ids: Collection[str], timeout: float = 120) -> None:
        """Wait until the Dag processor has stored these Dags, and unpause them.

        :raises StackError: when a Dag file cannot be imported, or after ``timeout`` seconds.
        """
        self._wait(lambda: self._missing_dags(dag_ids), timeout)
        for dag_id in dag_ids:
            self.api.unpause(dag_id)

    def check(self) -> None:
        """Check that all components are running.

        :raises StackError: when one has exited, with the end of its log.
        """
        for name, process in self._components.items():
            if (code := process.poll()) is not None:
                raise StackError(f"{name} exited with code {code}{self._log_end(name)}")

    def command(self, *words: str, environment: Mapping[str, str] | None = None) -> str:
        """Run an Airflow command and return its output.

        :param environment: additional environment variables for this command only.
        :raises StackError: when the command fails, with the end of its output.
        """
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *words],
            env={**self._full_environment(), **(environment or {})},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StackError(f"airflow {' '.join(words)} failed:\n{_last_lines(done.stdout + done.stderr)}")
        return done.stdout

    def end(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a component and wait for it to exit; SIGKILL also goes to all its descendants."""
        component = self._components.pop(name)
        children = psutil.Process(component.pid).children(recursive=True) if number == signal.SIGKILL else []
        component.send_signal(number)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.send_signal(number)
        component.wait(timeout=60)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to all processes of a component."""
        os.killpg(self._components[name].pid, number)

    def restart(self, name: str) -> None:
        """Restart a component, or start another one of its kind ("triggerer 2").

        Waits until Airflow reports every kind as healthy, which it also does until it notices that a component is gone.
        """
        self._components[name] = self._spawn(name)
        self.wait_until_healthy()

    def _wait(self, missing: Callable[[], Collection[str]], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while absent := missing():
            self.check()
            if time.monotonic() > deadline:
                raise StackError(
                    f"still waiting for {', '.join(absent)} after {timeout:g} s; logs in {self.log_folder}"
                )
            time.sleep(0.5)

    def stop(self) -> None:
        """Stop every process of this Airflow.

        :raises StackError: when a process survived.
        """
        if self._api is not None:
            self._api.close()
        components, self._components = self._components, {}
        stop(self.home)
        for name, process in components.items():
            # A process that is about to exit no longer has the environment by which processes are found.
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired as error:
                raise StackError(f"{name} survived SIGKILL") from error

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _spawn(self, name: str) -> subprocess.Popen[bytes]:
        kind, _, number = name.partition(" ")
        port = self._ports.trigger_log + int(number or 0)
        with open(self.log_folder / f"{name}.log", "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "airflow", kind],
                env={**self._full_environment(), "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(port)},
                cwd=self.home,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _missing_dags(self, dag_ids: Collection[str]) -> list[str]:
        missing = sorted(set(dag_ids) - self.api.dag_ids())
        if missing and (errors := self.api.import_errors()):
            raise StackError("\n".join(f"{name}: {trace}" for name, trace in errors.items()))
        return missing

    def _unhealthy(self) -> Sequence[str]:
        try:
            health = AirflowApi.health(self.url)
        except OSError:
            return HEALTH_NAMES
        absent = {name.replace("-", "_") for name in COMPONENTS if name not in self._wanted}
        wanted = [name for name in HEALTH_NAMES if name not in absent]
        return [name for name in wanted if (health.get(name) or {}).get("status") != "healthy"]

    def _log_end(self, name: str) -> str:
        path = self.log_folder / f"{name}.log"
        return f"; last lines of {path}:\n{_last_lines(path.read_text(errors='replace'))}"

    def _full_environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        return {
            **inherited,
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), inherited.get("PATH", os.defpath)]),
            "HOME": str(self.home),
            "AIRFLOW_HOME": str(self.home),
            MARKER: str(self.home),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            # Without this, process titles overwrite the environment by which processes are found.
            "SPT_NOENV": "1",
            **self._environment,
        }

    def _config(self) -> str:
        """The text of ``airflow.cfg``, from which an Airflow command in any shell learns the same settings."""
        bundles = [
            {
                "name": name,
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(path.absolute()), "refresh_interval": 5},
            }
            for name, path in self._bundles.items()
        ]
        parser = RawConfigParser()
        parser.read_dict(
            {
                "core": {
                    "executor": "LocalExecutor",
                    "parallelism": "4",
                    "load_examples": "False",
                    "test_connection": "Enabled",
                    "simple_auth_manager_users": f"{USER}:admin",
                    "fernet_key": Fernet.generate_key().decode(),
                },
                "database": {"sql_alchemy_conn": f"sqlite:///{self.home / 'airflow.db'}"},
                "api": {
                    "host": "127.0.0.1",
                    "port": str(self._ports.api),
                    "base_url": self.url,
                    "secret_key": secrets.token_urlsafe(32),
                },
                "api_auth": {"jwt_secret": secrets.token_urlsafe(32)},
                "logging": {
                    "base_log_folder": str(self.log_folder),
                    "worker_log_server_port": str(self._ports.worker_log),
                    "trigger_log_server_port": str(self._ports.trigger_log),
                },
                "dag_processor": {
                    "dag_bundle_config_list": json.dumps(bundles),
                    # Unchanged Dag files do not need to be parsed again every 30 seconds.
                    "min_file_process_interval": "300",
                },
            }
        )
        text = StringIO()
        parser.write(text)
        return text.getvalue()


def _free_ports() -> _Ports:
    api = next(port for port in range(FIRST_API_PORT, FIRST_API_PORT + 100) if is_free(port))
    worker_log, trigger_log, *_ = filter(is_free, range(FIRST_LOG_PORT, FIRST_LOG_PORT + 100))
    return _Ports(api=api, worker_log=worker_log, trigger_log=trigger_log)


def login(home: Path) -> tuple[str, str]:
    """Return the address of the UI and the password of ``admin``, as the Airflow with this home was started."""
    config = RawConfigParser()
    config.read(home / CONFIG_FILE)
    return config["api"]["base_url"], json.loads((home / PASSWORD_FILE).read_text())[USER]


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)


def _last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-LOG_LINES:])
