"""Addresses of requests: what is appended to one stays below it, and what a redirect says about one."""

from __future__ import annotations

from yarl import URL


def below(base: str, path: str) -> str:
    """An address below another one, as aiohttp reads it: what is appended must not move a request with credentials.

    :param base: ``scheme://host[:port][/prefix]`` without a trailing slash.
    :param path: empty, or a path that begins with a slash, possibly with a query.
    :raises ValueError: when the path leads elsewhere.
    """
    address = f"{base}{path}"
    root = URL(base).raw_path.rstrip("/")
    if (path and not path.startswith("/")) or not f"{URL(address).raw_path}/".startswith(f"{root}/"):
        raise ValueError(f"{path!r} is not a path below {base}")
    return address


def redirection(asked: str, location: str | None, field: str) -> str:
    """Where an answer redirects to, without credentials, query and fragment, and what to change.

    :param asked: address of the request.
    :param location: the ``Location`` header of the answer.
    :param field: field of the connection that holds the address.
    """
    try:
        target = URL(asked).join(URL(location or "")).with_user(None).with_query(None).with_fragment(None)
        readable = bool(location) and target.scheme in ("http", "https")
    except ValueError:
        readable = False
    if not readable:
        return "redirected, but not to an address that can be read"
    return f"redirected to {str(target)[:300]}, and redirects are not followed; {_advice(URL(asked), target, field)}"


def _advice(asked: URL, target: URL, field: str) -> str:
    is_upgrade = (asked.scheme, target.scheme) == ("http", "https")
    is_downgrade = (asked.scheme, target.scheme) == ("https", "http")
    old, new = asked.raw_path.rstrip("/"), target.raw_path.rstrip("/")
    is_same_path = new.endswith(old) if old else not new
    needs_slash = target.raw_path.endswith("/")
    if is_same_path and needs_slash != asked.raw_path.endswith("/") and not is_upgrade:
        return f"write the path {'with' if needs_slash else 'without'} the slash at its end"
    if is_same_path and not is_downgrade and target.origin() != asked.origin():
        moved = f"{target.origin()}{new.removesuffix(old)}"
        return f"in the {field} field of the connection, write {moved} instead of {asked.origin()}"
    return "is that a login page, or another path?"
