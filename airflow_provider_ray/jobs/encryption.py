"""Encrypting what passes through Airflow's database."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_ray.compat.tasks import get_fernet


def encrypt(spec: Mapping[str, Any]) -> str:
    """Encrypt what is submitted, as ``env_vars`` may hold secrets.

    Airflow 3.3.2 stores the arguments of a trigger as they are, although the column is called ``encrypted_kwargs``. If
    the Fernet key is empty, nothing is encrypted, as with connections.

    :raises RayConfigError: when ``[core] fernet_key`` is not a valid key.
    """
    with _fernet_errors_named():
        return get_fernet().encrypt(json.dumps(spec).encode()).decode()


def decrypt(encrypted: str) -> dict[str, Any]:
    """Decrypt what :func:`encrypt` returned.

    :raises RayConfigError: when the Fernet key here is not the one that encrypted it.
    """
    with _fernet_errors_named():
        spec: dict[str, Any] = json.loads(get_fernet().decrypt(encrypted))
        return spec


@contextmanager
def _fernet_errors_named() -> Iterator[None]:
    from cryptography.fernet import InvalidToken

    from airflow_provider_ray.client.errors import RayConfigError

    try:
        yield
    except (AirflowException, InvalidToken, ValueError) as error:
        got = f"one that cannot be used here ({type(error).__name__}: {error})"
        raise RayConfigError("[core] fernet_key", got, "the same key on workers and triggerers") from error
