"""The section ``[ray]`` of Airflow's configuration: what an Airflow administrator may tune.

Every option but one sets a value in :mod:`airflow_provider_ray.client.pacing`, which has its default and the reason for
it; :func:`installation` is the other. The options are declared in ``provider_info``, so ``airflow config list`` and the
configuration page show them.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import conf

from airflow_provider_ray.client import pacing
from airflow_provider_ray.compat import versions

SECTION = "ray"
# Option -> name in pacing.
OPTIONS: Mapping[str, str] = {
    "fault_budget": "FAULT_BUDGET_SECONDS",
    "auth_budget": "AUTH_BUDGET_SECONDS",
    "answer_timeout": "ANSWER_SECONDS",
    "stop_timeout": "STOP_CONFIRM_SECONDS",
    "refresh": "ROUND_SECONDS",
    "page_refresh": "PAGE_REFRESH_SECONDS",
    "log_lines_per_second": "LOG_LINES_PER_SECOND",
    "log_bytes_per_second": "LOG_BYTES_PER_SECOND",
    "log_followed_bytes": "LOG_FOLLOWED_BYTES",
    "log_last_lines": "LOG_LAST_LINES",
    "logs_at_once": "LOGS_AT_ONCE",
}
_DEFAULTS: Mapping[str, Any] = {option: getattr(pacing, name) for option, name in OPTIONS.items()}

_INSTALLATION = "installation"
_INSTALLATION_CHARACTERS = 200
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104

_is_applied = False


def apply() -> None:
    """Read the options, once per process, before the first connection is used.

    :raises RayConfigError: naming an option that is not a number above 0, or not a whole one where one is needed.
    """
    global _is_applied  # noqa: PLW0603
    if not _is_applied:
        values = {option: _value(option, default) for option, default in _DEFAULTS.items()}
        for option, value in values.items():
            if value != _DEFAULTS[option]:
                setattr(pacing, OPTIONS[option], value)
        versions.warn_if_untested()
        _is_applied = True


@cache
def installation() -> str:
    """What the metadata of a job calls the Airflow that submitted it, to tell apart those that share a cluster.

    ``[ray] installation``, by default the address of the API server without its scheme: ``[api] base_url``, else
    ``[core] execution_api_server_url``, else localhost with ``[api] port``. Many are at localhost, so a digest
    of the Fernet key is added there. Workers, triggerers and the API server must arrive at the same value; none of them
    needs the metadata database for it. Read once per process: an option may come from a command or
    a secrets backend.

    :raises RayConfigError: when the option is too long or has characters that cannot be printed.
    """
    from airflow_provider_ray.client.errors import RayConfigError

    given = str(conf.get(SECTION, _INSTALLATION, fallback=None) or "").strip()
    if not given:
        return _address_of_the_api_server()
    if len(given) > _INSTALLATION_CHARACTERS or not given.isprintable():
        expected = f"at most {_INSTALLATION_CHARACTERS} printable characters"
        raise RayConfigError(f"[{SECTION}] {_INSTALLATION}", f"{given[:_INSTALLATION_CHARACTERS]!r}", expected)
    return given


def _address_of_the_api_server() -> str:
    url = (
        conf.get("api", "base_url", fallback=None)
        or conf.get("core", "execution_api_server_url", fallback=None)
        or f"http://localhost:{conf.get('api', 'port', fallback='8080')}"
    )
    parts = urlsplit(url if "//" in url else f"//{url}")
    # Without credentials, which have no business on a cluster.
    host = parts.netloc.rpartition("@")[2]
    name = f"{host}{parts.path}".rstrip("/")[:_INSTALLATION_CHARACTERS]
    return f"{name}-{_digest_of_the_key()}" if parts.hostname in _LOCAL_HOSTS else name


def _digest_of_the_key() -> str:
    """Something that the components of one Airflow share and others do not have, and that tells nothing of the key."""
    key = conf.get("core", "fernet_key", fallback="").encode()
    return hmac.digest(key or b"none", b"airflow_installation", "sha256").hex()[:8]


def _value(option: str, default: float) -> float:
    from airflow_provider_ray.client.errors import RayConfigError

    text = conf.get(SECTION, option, fallback=str(default))
    kind = type(default)
    try:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
    except ValueError as error:
        expected = "a whole number of at least 1" if kind is int else "a number of seconds above 0"
        raise RayConfigError(f"[{SECTION}] {option}", repr(text), expected) from error
    return value
