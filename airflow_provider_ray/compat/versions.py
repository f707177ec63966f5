"""Whether this package was tested with the Airflow that it runs in.

What this folder relies on may change with a feature release, so the log names one that was never tested. Delete when
the folder is empty.
"""

from __future__ import annotations

import logging

from airflow.sdk import __version__ as sdk_version

# The task SDK is in every process, Airflow's core is not: 1.3 belongs to Airflow 3.3.
TESTED_SDK = "1.3"
TESTED_AIRFLOW = "3.3"

log = logging.getLogger(__name__)


def warn_if_untested() -> None:
    """Log a warning if Airflow is of another feature release."""
    if not f"{sdk_version}.".startswith(f"{TESTED_SDK}."):
        said = "airflow-provider-ray-fleet was tested with Airflow %s (task SDK %s), not with task SDK %s"
        log.warning(said, TESTED_AIRFLOW, TESTED_SDK, sdk_version)
