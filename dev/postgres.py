"""A PostgreSQL server in a temporary directory, reachable only from this host.

Airflow's scheduler fails when SQLite is locked, which happens when many tasks start at once.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_ray.local.ports import is_free

USER = "airflow"
FIRST_PORT = 5433
START_SECONDS = 60.0
# No data has to survive a crash.
SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


@dataclass(frozen=True)
class Database:
    """An empty database.

    :param port: port on loopback.
    :param password: password of its only user.
    """

    port: int
    password: str

    @property
    def address(self) -> str:
        """URL for psycopg2 and PostgreSQL's own commands."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/postgres"

    @property
    def sqlalchemy(self) -> str:
        """URL for Airflow."""
        return self.address.replace("postgresql:", "postgresql+psycopg2:", 1)


@contextmanager
def postgres() -> Iterator[Database]:
    """Run a server for the duration of a `with` block, and remove all traces of it.

    :raises FileNotFoundError: when PostgreSQL is not installed.
    """
    folder = Path(tempfile.mkdtemp(prefix="airflow-postgres-"))
    # PostgreSQL refuses to run as root; the Debian package creates a user for it.
    user = "postgres" if os.getuid() == 0 else None
    try:
        if user:
            shutil.chown(folder, user)
        database = Database(next(filter(is_free, range(FIRST_PORT, FIRST_PORT + 100))), secrets.token_hex(16))
        _initialise(folder, database, user)
        with open(folder / "log", "wb") as log:
            server = subprocess.Popen(
                [_command("postgres"), "-D", folder / "data", "-p", str(database.port), *_settings(folder)],
                user=user,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            _wait_until_ready(database, server, folder / "log")
            yield database
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()
                raise
    finally:
        shutil.rmtree(folder)


def _command(name: str) -> str:
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(newest[-1]) if newest else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"PostgreSQL is not installed: no {name} found; try `make setup-postgres`")
    return found


def _settings(folder: Path) -> list[str]:
    given = ("listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", *SETTINGS)
    return [part for setting in given for part in ("-c", setting)]


def _initialise(folder: Path, database: Database, user: str | None) -> None:
    secret = folder / "password"
    secret.write_text(database.password)
    if user:
        shutil.chown(secret, user)
    secret.chmod(0o600)
    subprocess.run(
        [
            *(_command("initdb"), "-D", folder / "data", "--no-sync", "--encoding=UTF8", "--locale=C"),
            *("--username", USER, "--pwfile", secret, "--auth=scram-sha-256"),
        ],
        user=user,
        cwd=folder,
        check=True,
        capture_output=True,
    )
    secret.unlink()


def _wait_until_ready(database: Database, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    ask = [_command("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(database.port)]
    while subprocess.run(ask, check=False).returncode:
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
        time.sleep(0.1)
