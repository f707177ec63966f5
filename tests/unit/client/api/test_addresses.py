from __future__ import annotations

import pytest

from airflow_provider_ray.client.api.addresses import below, redirection


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("http://dash:8000", ""),
        ("http://dash:8000", "/"),
        ("http://dash:8000", "//other/x"),
        ("http://dash:8000", "/a/../b"),
        ("http://dash:8000", "/@other:80"),
        ("http://dash:8000/base", ""),
        ("http://dash:8000/base", "/"),
        ("http://dash:8000/base", "/a?next=/../x"),
        ("http://dash:8000/b%20e", "/x"),
    ],
)
def test_what_stays_below_an_address_is_appended(base: str, path: str) -> None:
    assert below(base, path) == f"{base}{path}"


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("http://dash:8000", "@other:80/x"),
        ("http://dash", ":8001/x"),
        ("http://dash", ".other/x"),
        ("http://dash:8000", "0/x"),
        ("http://dash:8000", "x"),
        ("http://dash:8000", "?x"),
        ("http://dash:8000", "\\@other/x"),
        ("http://dash:8000/base", "-other/x"),
        ("http://dash:8000/base", "/.."),
        ("http://dash:8000/base", "/../other"),
        ("http://dash:8000/base", "/a/../../other"),
        ("http://dash:8000/base", "/%2e%2e/other"),
    ],
)
def test_what_leads_elsewhere_is_refused(base: str, path: str) -> None:
    with pytest.raises(ValueError, match="is not a path below http://dash"):
        below(base, path)


LOGIN = "is that a login page, or another path?"


@pytest.mark.parametrize(
    ("asked", "location", "where", "advice"),
    [
        ("http://h:8000/bar", "http://h:8000/bar/", "http://h:8000/bar/", "write the path with the slash at its end"),
        ("http://h:8000/bar", "/bar/", "http://h:8000/bar/", "write the path with the slash at its end"),
        ("http://h/bar/?a=1", "http://h/bar?a=1", "http://h/bar", "write the path without the slash at its end"),
        # An application below a root_path that no proxy strips.
        ("http://h/bar", "http://h/base/bar/", "http://h/base/bar/", "write the path with the slash at its end"),
        # A server that does not know that its proxy speaks HTTPS.
        ("https://h/bar", "http://h/bar/", "http://h/bar/", "write the path with the slash at its end"),
        (
            "http://h/api/version",
            "https://h/api/version",
            "https://h/api/version",
            "in the host field of the connection, write https://h instead of http://h",
        ),
        (
            "http://h:8265/api/version?x=1",
            "https://ray.example/prefix/api/version?x=1",
            "https://ray.example/prefix/api/version",
            "in the host field of the connection, write https://ray.example/prefix instead of http://h:8265",
        ),
        (
            "http://h/bar",
            "https://h/bar/",
            "https://h/bar/",
            "in the host field of the connection, write https://h instead of http://h",
        ),
        ("http://h/a", "/login", "http://h/login", LOGIN),
        ("http://h/", "/login", "http://h/login", LOGIN),
        ("http://h/", "https://h/login", "https://h/login", LOGIN),
        (
            "http://h",
            "https://h",
            "https://h",
            "in the host field of the connection, write https://h instead of http://h",
        ),
        ("http://h/a", "//sso/login?next=%2Fa&token=s3cret#s3cret", "http://sso/login", LOGIN),
        ("http://h/a", "/x\r\nSet-Cookie: y", "http://h/xSet-Cookie:%20y", LOGIN),
        ("http://h/a", "https://user:s3cret@sso/login", "https://sso/login", LOGIN),
        ("https://h/a", "http://h/a", "http://h/a", LOGIN),
        ("http://h/a", "http://h/a", "http://h/a", LOGIN),
    ],
)
def test_a_redirect_is_described_without_secrets(asked: str, location: str, where: str, advice: str) -> None:
    said = f"redirected to {where}, and redirects are not followed; {advice}"
    assert redirection(asked, location, "host") == said


@pytest.mark.parametrize(
    "location",
    [None, "", "javascript:s3cret", "ftp://h/s3cret", "http://h:99999/s3cret", "http://[::1/s3cret"],
)
def test_a_redirect_to_nowhere_is_described(location: str | None) -> None:
    assert redirection("http://h/a", location, "host") == "redirected, but not to an address that can be read"


def test_a_long_location_is_cut() -> None:
    assert len(redirection("http://h/a", "/" + "x" * 5000, "host")) < 500
