"""Validates the conf of a Dag run before anything is started."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


class ConfError(Exception):
    """The conf is invalid."""


def read_conf(text: str, dags: Path) -> dict[str, Any]:
    """Decode the conf and validate it against the params of the fan-out Dag.

    :param text: a JSON object.
    :param dags: folder with the Dags.
    :raises ConfError: when the conf or one of its params is invalid.
    """
    try:
        conf = json.loads(text)
    except ValueError as error:
        raise ConfError(f"CONF is not JSON: {error}; got {text!r}") from error
    if not isinstance(conf, dict):
        raise ConfError(f'CONF is a JSON {type(conf).__name__}; expected an object such as {{"amount": 1013}}')
    with tempfile.TemporaryDirectory(prefix="demo-conf-") as home:
        _check_params(conf, dags, home)
    return conf


def _check_params(conf: dict[str, Any], dags: Path, airflow_home: str) -> None:
    """Importing Airflow reads its environment and writes to its home, so both must be replaced first."""
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    os.environ["AIRFLOW_HOME"] = airflow_home
    sys.path.insert(0, str(dags))
    from airflow.sdk.exceptions import ParamValidationError
    from processing_pipeline import params

    known = params()
    if unknown := sorted(set(conf) - set(known)):
        raise ConfError(f"CONF has unknown params: {', '.join(unknown)}; the Dag has {', '.join(known)}")
    for name, value in conf.items():
        try:
            known[name].resolve(value)
        except ParamValidationError as error:
            raise ConfError(f"CONF, param {name}: {str(error).splitlines()[0]}") from error
