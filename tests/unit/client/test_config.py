from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayConfigError

SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "ray.example"}, "http://ray.example:8265"),
        ({"host": " ray.example "}, "http://ray.example:8265"),
        ({"host": "ray.example", "port": 80}, "http://ray.example:80"),
        ({"host": "ray.example:9000"}, "http://ray.example:9000"),
        ({"host": "ray.example:9000", "port": 9000}, "http://ray.example:9000"),
        ({"host": "ray_head"}, "http://ray_head:8265"),
        ({"host": "ray.example", "schema": "https"}, "https://ray.example:8265"),
        ({"host": "ray.example/clusters/a"}, "http://ray.example:8265/clusters/a"),
        ({"host": "https://ray.example"}, "https://ray.example"),
        ({"host": "https://ray.example/", "schema": "https"}, "https://ray.example"),
        ({"host": "https://ray.example", "port": 8443}, "https://ray.example:8443"),
        ({"host": "http://ray.example:8265/a/"}, "http://ray.example:8265/a"),
        ({"host": "ray.example."}, "http://ray.example.:8265"),
        ({"host": f"{'a' * 63}.example"}, f"http://{'a' * 63}.example:8265"),
        ({"host": "::1"}, "http://[::1]:8265"),
        ({"host": "[::1]:9000"}, "http://[::1]:9000"),
        ({"host": "http://[fe80::1%eth0]:9000"}, "http://[fe80::1%eth0]:9000"),
        ({"host": "ray.example", "extra": {"path_prefix": "/ray/a/"}}, "http://ray.example:8265/ray/a"),
        ({"host": "https://ray.example/x", "extra": {"path_prefix": "y"}}, "https://ray.example/x/y"),
        ({"host": "ray.example", "extra": {"path_prefix": None}}, "http://ray.example:8265"),
    ],
)
def test_addresses(fields: dict[str, Any], url: str) -> None:
    assert ClusterConfig.from_fields(**fields).url == url


@pytest.mark.parametrize(
    ("fields", "field", "got"),
    [
        ({"host": None}, "host", "nothing"),
        ({"host": "  "}, "host", "nothing"),
        ({"host": "ray://head:10001"}, "host", "'ray'"),
        ({"host": "gcs://head:6379"}, "host", "'gcs'"),
        ({"host": "http://"}, "host", "None"),
        ({"host": "http://a b"}, "host", "'a b'"),
        ({"host": "ray..example"}, "host", "'ray..example'"),
        ({"host": "http://.ray.example"}, "host", "'.ray.example'"),
        ({"host": f"{'a' * 64}.example"}, "host", "aaa.example'"),
        ({"host": f"{'ä' * 60}.example"}, "host", "äää.example'"),
        ({"host": "ray.example", "extra": {"serve_url": "http://ray..example"}}, "serve_url", "'ray..example'"),
        ({"host": "http://[::1"}, "host", "http://[::1"),
        ({"host": "http://ray.example:http"}, "host", "ray.example:http"),
        ({"host": "http://ray.example:99999"}, "host", "99999"),
        ({"host": "http://ray.example:0"}, "host", "port 0"),
        ({"host": "http://ray.example?x=1"}, "host", "query"),
        ({"host": "http://ray.example/#/jobs"}, "host", "fragment"),
        ({"host": "http://ray.example:1", "port": 2}, "host", "port 1 in the address and 2"),
        ({"host": f"http://user:{SECRET}@ray.example"}, "host", "credentials"),
        ({"host": f"user:{SECRET}@ray.example:8265"}, "host", "credentials"),
        ({"host": f"http://user:{SECRET}@ray.example:http"}, "host", "credentials"),
        ({"host": f"http://{SECRET}@[::1"}, "host", "credentials"),
        ({"host": "ray.example", "port": 0}, "port", "0"),
        ({"host": "ray.example", "port": 70000}, "port", "70000"),
        ({"host": "ray.example", "schema": "ftp"}, "schema", "'ftp'"),
        ({"host": "http://ray.example", "schema": "https"}, "schema", "'https' and another"),
        ({"host": "ray.example", "password": f"{SECRET}\n"}, "password", "a character not allowed in a header"),
        ({"host": "ray.example", "password": f"Bearer {SECRET}"}, "password", "whitespace"),
    ],
)
def test_bad_addresses(fields: dict[str, Any], field: str, got: str) -> None:
    with pytest.raises(RayConfigError) as caught:
        ClusterConfig.from_fields(**fields)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: got ")
    assert "; expected " in str(caught.value)
    assert got in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "field", "got"),
    [
        ({"verify": False}, "extra", "['verify']"),
        ({"Verify_SSL": False, "tokn": SECRET}, "extra", "['Verify_SSL', 'tokn']"),
        ({"verify_ssl": "no"}, "verify_ssl", "'no'"),
        ({"verify_ssl": 0}, "verify_ssl", "0"),
        ({"ca_cert": True}, "ca_cert", "bool"),
        ({"client_cert": ["a"]}, "client_cert", "list"),
        ({"client_key": "/key.pem"}, "client_key", "without a certificate"),
        ({"path_prefix": "a?b"}, "path_prefix", "'a?b'"),
        ({"path_prefix": "a b"}, "path_prefix", "'a b'"),
        ({"connect_timeout": "soon"}, "connect_timeout", "'soon'"),
        ({"connect_timeout": 0}, "connect_timeout", "0"),
        ({"read_timeout": -1}, "read_timeout", "-1"),
        ({"read_timeout": True}, "read_timeout", "True"),
        ({"read_timeout": "inf"}, "read_timeout", "'inf'"),
        ({"read_timeout": "nan"}, "read_timeout", "'nan'"),
        ({"read_timeout": [5]}, "read_timeout", "[5]"),
        ({"serve_url": "ray.example:8000"}, "serve_url", "'ray.example'"),
        ({"serve_url": "grpc://ray.example"}, "serve_url", "'grpc'"),
        ({"serve_url": f"http://u:{SECRET}@ray.example"}, "serve_url", "credentials"),
        ({"public_url": "ftp://ray.example"}, "public_url", "'ftp'"),
        ({"serve_token": f"{SECRET} "}, "serve_token", "whitespace"),
        ({"auth_headers": f'{{"X-Key": "{SECRET}"}}'}, "auth_headers", "str"),
        ({"auth_headers": {"X-Key": [SECRET]}}, "auth_headers", "dict"),
        ({"auth_headers": {"X-Key": f"{SECRET}\r\nX-Other: 1"}}, "auth_headers", "'X-Key'"),
        ({"auth_headers": {"X Key": SECRET}}, "auth_headers", "'X Key'"),
        ({"auth_headers": {"": SECRET}}, "auth_headers", "''"),
        ({"serve_auth_headers": {"X-Key": f"{SECRET}\0"}}, "serve_auth_headers", "'X-Key'"),
        ({"labels": {"gpu": True}}, "labels", "True of type bool"),
        ({"max_jobs": 0}, "max_jobs", "0"),
        ({"job_retention": 0}, "job_retention", "0"),
        ({"job_retention": 0.9}, "job_retention", "0.9"),
        ({"job_retention": -1}, "job_retention", "-1"),
        ({"job_retention": True}, "job_retention", "True"),
        ({"job_retention": "a week"}, "job_retention", "'a week'"),
        ({"job_retention": [7]}, "job_retention", "[7]"),
        ({"max_jobs": -1}, "max_jobs", "-1"),
        ({"max_jobs": 1.5}, "max_jobs", "1.5"),
        ({"max_jobs": True}, "max_jobs", "True"),
        ({"max_jobs": "many"}, "max_jobs", "'many'"),
    ],
)
def test_bad_extras(extra: dict[str, Any], field: str, got: str) -> None:
    with pytest.raises(RayConfigError) as caught:
        ClusterConfig.from_fields(host="ray.example", extra=extra)
    assert caught.value.field == field
    assert got in str(caught.value)
    assert "; expected " in str(caught.value)
    assert SECRET not in str(caught.value)


def test_everything_given() -> None:
    config = ClusterConfig.from_fields(
        host="https://ray.example",
        password="token",
        extra={
            "verify_ssl": "true",
            "ca_cert": "/ca.pem",
            "client_cert": "/cert.pem",
            "client_key": "/key.pem",
            "auth_headers": {"X-Tenant": "a"},
            "connect_timeout": "1.5",
            "read_timeout": 10,
            "serve_url": "https://serve.example:8443/ray/",
            "serve_token": "other",
            "serve_auth_headers": {"X-Tenant": "b"},
            "public_url": "https://ray.public.example/a",
            "labels": {"site": "hpc"},
            "max_jobs": "4",
            "job_retention": "7.5",
        },
    )
    assert config == ClusterConfig(
        url="https://ray.example",
        token="token",
        auth_headers={"X-Tenant": "a"},
        verify="/ca.pem",
        client_cert="/cert.pem",
        client_key="/key.pem",
        connect_timeout=1.5,
        read_timeout=10.0,
        serve_url="https://serve.example:8443/ray",
        serve_token="other",
        serve_auth_headers={"X-Tenant": "b"},
        public_url="https://ray.public.example/a",
        labels={"site": "hpc"},
        max_jobs=4,
        job_retention=7.5,
    )
    assert config.job_url("j1") == "https://ray.public.example/a/#/jobs/j1"
    assert config.serve_port == 8443


def test_nulls_and_empty_strings_count_as_not_given() -> None:
    extra = {
        "serve_url": "",
        "auth_headers": None,
        "verify_ssl": None,
        "read_timeout": "",
        "labels": None,
        "max_jobs": "",
    }
    config = ClusterConfig.from_fields(host="ray.example", password="", schema="", extra=extra)
    assert config == ClusterConfig(url="http://ray.example:8265")
    assert config.job_url("j1") == "http://ray.example:8265/#/jobs/j1"
    assert config.serve_port == 8000


@pytest.mark.parametrize("verify", [False, "false", "False"])
def test_verification_can_be_switched_off(verify: Any) -> None:
    extra = {"verify_ssl": verify, "ca_cert": "/ca.pem"}
    assert ClusterConfig.from_fields(host="ray.example", extra=extra).verify is False


def test_no_secret_in_the_repr() -> None:
    headers = {"X-Key": SECRET}
    extra = {"auth_headers": headers, "serve_token": SECRET, "serve_auth_headers": headers}
    config = ClusterConfig.from_fields(host="ray.example", password=SECRET, extra=extra)
    assert SECRET not in repr(config)
    assert "ray.example" in repr(config)


def test_the_callers_headers_are_copied() -> None:
    headers = {"X-Key": "a"}
    config = ClusterConfig.from_fields(host="ray.example", extra={"auth_headers": headers})
    headers["X-Key"] = "changed"
    assert config.auth_headers == {"X-Key": "a"}


def test_a_login_is_for_a_proxy_and_the_token_has_a_field_of_its_own() -> None:
    extra = {"cluster_token": "t0ken", "serve_token": "s3rve"}
    config = ClusterConfig.from_fields(host="ray.example", login="üser", password="p ä:ss", extra=extra)
    assert config.dashboard.basic_auth == f"Basic {base64.b64encode('üser:p ä:ss'.encode()).decode()}"
    assert (config.dashboard.token, config.applications.token) == ("t0ken", "s3rve")
    assert config.applications.basic_auth is None
    assert not {"t0ken", "p ä:ss"} & set(re.split(r"['\"]", repr(config) + repr(config.dashboard)))
    alone = ClusterConfig.from_fields(host="ray.example", login="user", password="secret")
    assert alone.dashboard.token is None
    without = ClusterConfig.from_fields(host="ray.example", extra={"cluster_token": "t0ken"})
    assert (without.dashboard.token, without.dashboard.basic_auth) == ("t0ken", None)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"login": "a:b", "password": SECRET}, "login"),
        ({"login": "a\n", "password": SECRET}, "login"),
        ({"login": "a", "password": f"{SECRET}\n"}, "password"),
        ({"login": "a", "password": SECRET, "extra": {"auth_headers": {"authorization": SECRET}}}, "login"),
        ({"password": SECRET, "extra": {"cluster_token": "another"}}, "cluster_token"),
    ],
)
def test_bad_logins(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(RayConfigError) as caught:
        ClusterConfig.from_fields(host="ray.example", **fields)
    assert caught.value.field == field
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["host", "schema", "password"])
@pytest.mark.parametrize("value", [5, True, ["s3cret"], {"a": "s3cret"}])
def test_a_field_of_another_type_is_named_without_its_value(name: str, value: Any) -> None:
    with pytest.raises(RayConfigError, match=f"{name}: got {type(value).__name__}; expected a string") as caught:
        ClusterConfig.from_fields(**{"host": "ray", name: value})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("port", ["8265", 1.5, True])
def test_a_port_is_a_whole_number(port: Any) -> None:
    with pytest.raises(RayConfigError, match="port"):
        ClusterConfig.from_fields(host="ray", port=port)


def test_the_page_of_a_job_has_an_address_whatever_its_id() -> None:
    assert ClusterConfig(url="http://ray").job_url("etl job/7?#:") == "http://ray/#/jobs/etl%20job%2F7%3F%23%3A"
