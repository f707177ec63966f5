"""The configuration of one cluster: its address, how to authenticate, how long to wait."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from yarl import URL

from airflow_provider_ray.client.durations import seconds
from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.labels import read_labels
from airflow_provider_ray.client.values import check_headers, number

DEFAULT_DASHBOARD_PORT = 8265
DEFAULT_SERVE_PORT = 8000

_HOSTNAME = re.compile(r"[\w.:%-]+")
_TOKEN = re.compile(r"[!-~]+")
DEFAULT_CONNECT_TIMEOUT = 5.0
DEFAULT_READ_TIMEOUT = 30.0

EXTRA_FIELDS = frozenset(
    {
        "verify_ssl",
        "ca_cert",
        "client_cert",
        "client_key",
        "path_prefix",
        "auth_headers",
        "cluster_token",
        "connect_timeout",
        "read_timeout",
        "serve_url",
        "serve_token",
        "serve_auth_headers",
        "public_url",
        "labels",
        "max_jobs",
        "job_retention",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One of a cluster's servers, with the credentials for it.

    :param url: its address; empty if requests name their complete URL.
    :param token: bearer token.
    :param token_field: where the connection holds the token.
    :param headers: additional headers.
    :param basic_auth: value of the header Authorization for HTTP basic authentication.
    :param prefix: what the addresses begin with that the credentials are for.
    :param address_field: where the connection holds the address.
    """

    url: str
    token: str | None = field(repr=False)
    token_field: str
    headers: Mapping[str, str] = field(repr=False)
    basic_auth: str | None = field(default=None, repr=False)
    prefix: str
    address_field: str = "host"

    def advice(self, status: int) -> str:
        """What a rejection of the credentials means.

        :param status: 401 or 403.
        """
        if self.basic_auth:
            also = f"or the cluster wants another token in the {self.token_field} field"
            return f"login and password of the connection were rejected, {also}"
        if status == 401:
            return f"the cluster requires a token; set it in the {self.token_field} field of the connection"
        return f"the token in the {self.token_field} field of the connection was rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Address, credentials and limits of one Ray cluster.

    The environment has no influence: RAY_ADDRESS, RAY_API_SERVER_ADDRESS and RAY_AUTH_TOKEN are never read.

    :param url: base of the dashboard, ``scheme://host[:port][/prefix]`` without a trailing slash.
    :param token: bearer token of the cluster (Ray 2.52+), None for a cluster without authentication.
    :param login: user name for a proxy in front of the dashboard that demands HTTP basic authentication. The token
        then goes into ``X-Ray-Authorization``, where Ray 2.52+ looks for it as well.
    :param login_password: the password of that user.
    :param auth_headers: additional headers for the dashboard, such as those for a proxy in front of it.
    :param verify: False turns TLS verification off; a path names a CA bundle.
    :param client_cert: path of a client certificate (PEM), for mutual TLS.
    :param client_key: path of its key; None when the certificate file holds it.
    :param connect_timeout: seconds to wait for a connection.
    :param read_timeout: seconds to wait for the next bytes of an answer.
    :param serve_url: base URL of the Serve proxy as Airflow reaches it; None derives it from the dashboard's
        host and the port that Serve reports.
    :param serve_token: bearer token for Serve. The cluster's token is never sent to Serve.
    :param serve_auth_headers: additional headers for Serve.
    :param public_url: address of the dashboard for browsers; None means ``url``.
    :param labels: labels that a selector such as ``site=hpc,gpu=true`` matches.
    :param max_jobs: maximum number of concurrent jobs on the cluster; None for no limit.
    :param job_retention: days after which the records of ended jobs that this Airflow submitted are deleted; None
        keeps them forever, as Ray does.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    login: str | None = None
    login_password: str | None = field(default=None, repr=False)
    auth_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: bool | str = True
    client_cert: str | None = None
    client_key: str | None = None
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    read_timeout: float = DEFAULT_READ_TIMEOUT
    serve_url: str | None = None
    serve_token: str | None = field(default=None, repr=False)
    serve_auth_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    public_url: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    max_jobs: int | None = None
    job_retention: float | None = None

    @classmethod
    def from_fields(
        cls,
        *,
        host: str | None,
        port: int | None = None,
        schema: str | None = None,
        login: str | None = None,
        password: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> ClusterConfig:
        """Build the value from the fields of a connection form; null counts as not given.

        :raises RayConfigError: naming the field, what it held and what was expected.
        """
        for name, value in (("host", host), ("schema", schema), ("password", password)):
            if not isinstance(value, str | None):
                raise RayConfigError(name, type(value).__name__, "a string")
        given = {key: value for key, value in (extra or {}).items() if value not in (None, "")}
        if unknown := sorted(set(given) - EXTRA_FIELDS):
            raise RayConfigError("extra", f"unknown {unknown}", f"only {sorted(EXTRA_FIELDS)}")
        verify = _boolean(given, "verify_ssl", default=True)
        _check_login(login, password, given)
        return cls(
            url=_dashboard_url(host, port, schema, _text(given, "path_prefix") or ""),
            token=_token("cluster_token", _text(given, "cluster_token"))
            or (None if login else _token("password", password)),
            login=login or None,
            login_password=password if login else None,
            auth_headers=_headers(given, "auth_headers"),
            verify=_text(given, "ca_cert") or True if verify else False,
            client_cert=_text(given, "client_cert"),
            client_key=_client_key(given),
            connect_timeout=_seconds(given, "connect_timeout", DEFAULT_CONNECT_TIMEOUT),
            read_timeout=_seconds(given, "read_timeout", DEFAULT_READ_TIMEOUT),
            serve_url=_http_url(given, "serve_url"),
            serve_token=_token("serve_token", _text(given, "serve_token")),
            serve_auth_headers=_headers(given, "serve_auth_headers"),
            public_url=_http_url(given, "public_url"),
            labels=read_labels(given),
            max_jobs=_count(given, "max_jobs"),
            job_retention=_days(given, "job_retention"),
        )

    @property
    def dashboard(self) -> Endpoint:
        """The dashboard, which is given the cluster's token."""
        return Endpoint(
            url=self.url,
            token=self.token,
            token_field="cluster_token" if self.login else "password",
            headers=self.auth_headers,
            basic_auth=self.basic_auth,
            prefix=self.url,
        )

    @property
    def applications(self) -> Endpoint:
        """Serve's proxy, which has credentials of its own."""
        return Endpoint(
            url="",
            token=self.serve_token,
            token_field="serve_token",
            headers=self.serve_auth_headers,
            # Without an address of its own it has the dashboard's host, and the port that Ray reports.
            prefix=f"{self.serve_url}/" if self.serve_url else f"http://{URL(self.url).host_subcomponent}:",
            address_field="serve_url",
        )

    @property
    def basic_auth(self) -> str | None:
        """Value of the header Authorization for login and password (RFC 7617)."""
        if not self.login:
            return None
        both = f"{self.login}:{self.login_password or ''}"
        return f"Basic {b64encode(both.encode()).decode()}"

    def job_url(self, submission_id: str) -> str:
        """Page of a job in the dashboard, under the address that people use."""
        return f"{self.public_url or self.url}/#/jobs/{quote(submission_id, safe='')}"

    @property
    def serve_port(self) -> int:
        """Port of the Serve proxy: that of ``serve_url``, else Ray's default 8000."""
        return (URL(self.serve_url).explicit_port if self.serve_url else None) or DEFAULT_SERVE_PORT


def _dashboard_url(host: str | None, port: int | None, schema: str | None, path_prefix: str) -> str:
    given = (host or "").strip()
    if not given:
        raise RayConfigError("host", "nothing", "the address of a Ray dashboard, such as https://ray.example")
    if port is not None and (type(port) is not int or not 0 < port < 65536):
        raise RayConfigError("port", repr(port), "a number from 1 to 65535")
    if schema and schema not in ("http", "https"):
        raise RayConfigError("schema", repr(schema), "'http' or 'https'")
    if "://" in given:
        if schema and not given.startswith(f"{schema}://"):
            raise RayConfigError("schema", f"{schema!r} and another scheme in the host field", "one scheme")
        return _url("host", given, port) + _prefix(path_prefix)
    is_ipv6 = given.count(":") > 1 and not given.startswith("[") and "@" not in given
    address = f"{schema or 'http'}://{f'[{given}]' if is_ipv6 else given}"
    return _url("host", address, port, DEFAULT_DASHBOARD_PORT) + _prefix(path_prefix)


def _url(name: str, address: str, port: int | None, default_port: int | None = None) -> str:
    parts = _parts(name, address)
    if parts.scheme not in ("http", "https"):
        raise RayConfigError(
            name,
            f"an address with the scheme {parts.scheme!r}",
            "http://host:port or https://host:port of the dashboard (Jobs API), not a ray:// or GCS address",
        )
    if not _is_hostname(parts):
        raise RayConfigError(name, f"the host name {parts.host!r}", "scheme://host:port/prefix")
    if parts.raw_query_string or parts.raw_fragment:
        raise RayConfigError(name, "an address with a query or fragment", "scheme://host:port/prefix")
    own = parts.explicit_port
    if own and port and own != port:
        raise RayConfigError(name, f"port {own} in the address and {port} in the port field", "one port")
    number = own or port or default_port
    return f"{parts.scheme}://{parts.host_subcomponent}{f':{number}' if number else ''}{parts.raw_path.rstrip('/')}"


def _is_hostname(parts: URL) -> bool:
    """Also that no label is empty or has more than 63 characters, for which the look-up has no proper error."""
    try:
        (parts.raw_host or "").encode("idna")
    except UnicodeError:
        return False
    return bool(_HOSTNAME.fullmatch(parts.host or ""))


def _parts(name: str, address: str) -> URL:
    """The address as aiohttp will read it; what is between :// and @ is a secret and is not repeated."""
    if "@" in address.partition("://")[2]:
        raise RayConfigError(name, "an address with credentials in it", "the token in the password field")
    try:
        parts = URL(address)
    except ValueError as error:
        raise RayConfigError(name, f"{address!r} ({error})", "scheme://host:port/prefix") from error
    if parts.explicit_port == 0:
        raise RayConfigError(name, f"{address!r} with port 0", "a port from 1 to 65535")
    return parts


def _prefix(path_prefix: str) -> str:
    stripped = path_prefix.strip("/")
    if any(character in "?#" or character.isspace() for character in stripped):
        raise RayConfigError("path_prefix", repr(path_prefix), "a path such as /ray/cluster-a")
    return f"/{stripped}" if stripped else ""


def _http_url(extra: Mapping[str, Any], name: str) -> str | None:
    value = _text(extra, name)
    return _url(name, value.strip(), None) if value else None


def _token(name: str, value: str | None) -> str | None:
    if value and not _TOKEN.fullmatch(value):
        got = "a value with whitespace or a character not allowed in a header"
        raise RayConfigError(name, got, "the token alone, in printable ASCII")
    return value or None


def _check_login(login: str | None, password: str | None, given: Mapping[str, Any]) -> None:
    """Reject what cannot be sent as HTTP basic authentication, or contradicts it."""
    if not login:
        if password and given.get("cluster_token") not in (None, password):
            raise RayConfigError("cluster_token", "another value than the password field", "one token")
        return
    if ":" in login or not login.isprintable():
        raise RayConfigError("login", "a name with a colon or a control character", "the name of a user")
    if password and not password.isprintable():
        raise RayConfigError("password", "a value with a line break or control character", "the password of the login")
    if any(name.lower() == "authorization" for name in _headers(given, "auth_headers")):
        raise RayConfigError("login", "a login and Authorization in auth_headers", "one of them")


def _client_key(given: Mapping[str, Any]) -> str | None:
    if given.get("client_key") and not given.get("client_cert"):
        raise RayConfigError("client_key", "a key without a certificate", "client_cert as well")
    return _text(given, "client_key")


def _text(extra: Mapping[str, Any], name: str) -> str | None:
    value = extra.get(name)
    if value is not None and not isinstance(value, str):
        raise RayConfigError(name, type(value).__name__, "a string")
    return value


def _boolean(extra: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = extra.get(name, default)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise RayConfigError(name, repr(value), "true or false (a CA bundle goes into ca_cert)")
    return value


def _seconds(extra: Mapping[str, Any], name: str, default: float) -> float:
    value = extra.get(name, default)
    try:
        return seconds(name, float(value) if isinstance(value, str) else value)
    except ValueError as error:
        # A RayConfigError is a ValueError, but this one mentions a timedelta, which JSON does not have.
        raise RayConfigError(name, repr(value), "a number of seconds above 0") from error


def _count(extra: Mapping[str, Any], name: str) -> int | None:
    value = extra.get(name)
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if number is not None and (type(number) is not int or number < 1):
        raise RayConfigError(name, repr(value), "a whole number of at least 1")
    return number


def _days(extra: Mapping[str, Any], name: str) -> float | None:
    """A day at least: an attempt of a task looks for the jobs of earlier ones."""
    value = extra.get(name)
    try:
        days = None if value is None else number(name, value)
    except RayConfigError:
        days = 0
    if days is not None and days < 1:
        raise RayConfigError(name, repr(value), "a number of days of at least 1")
    return days


def _headers(extra: Mapping[str, Any], name: str) -> dict[str, str]:
    value = extra.get(name, {})
    check_headers(name, value)
    return dict(value)
