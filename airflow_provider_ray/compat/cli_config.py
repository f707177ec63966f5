"""What Airflow's command line is defined with; read at every start of it, so this loads nothing else.

Providers may add commands (the key ``cli`` of provider_info), but what to build them from is not documented (Airflow
3.3). Delete when it is.
"""

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_VERBOSE,
    ActionCommand,
    Arg,
    GroupCommand,
    lazy_load_command,
    positive_int,
)

__all__ = ["ARG_OUTPUT", "ARG_VERBOSE", "ActionCommand", "Arg", "GroupCommand", "lazy_load_command", "positive_int"]
