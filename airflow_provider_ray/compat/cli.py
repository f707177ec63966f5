"""What the commands of Airflow's command line run with.

None of it is documented for providers (Airflow 3.3). Delete when it is, or when Airflow's ``airflowctl`` takes
commands of providers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.cli.simple_table import AirflowConsole
from airflow.utils.cli import action_cli
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

__all__ = ["AirflowConsole", "action_cli", "providers_configuration_loaded", "reading_the_database"]

_PROCESS_CONTEXT = "_AIRFLOW_PROCESS_CONTEXT"


@contextmanager
def reading_the_database() -> Iterator[None]:
    """Let this process look connections up in Airflow's database; if the block fails, in the environment alone.

    Airflow 3.3 does so only in a process that has declared itself a server, as its own commands do. Delete when the
    look-up works in any process that can reach the database.
    """
    os.environ[_PROCESS_CONTEXT] = "server"
    try:
        yield
    except BaseException:
        del os.environ[_PROCESS_CONTEXT]
        raise
