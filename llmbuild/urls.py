"""URLs parsed in one place: how messages show them, how files store them, and which hosts plain http may reach."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse

from llmbuild.canonical import digest_bytes

_KEPT_QUERY = re.compile(r"query-sha256=[0-9a-f]{64}")


def shown(url: str) -> str:
    """A URL as messages show it: without credentials and without the query, which may contain a signature."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        # The URL cannot be parsed, and its secrets must stay hidden nevertheless.
        return url.partition("?")[0].partition("#")[0].rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def kept(url: str) -> str:
    """A URL as files store it: the query, which may contain a signature, as its digest; no credentials and no fragment.

    A URL in this form stays as it is.  Raises ValueError for what is no URL.
    """
    parts = urllib.parse.urlsplit(url)
    query = parts.query
    if query and not _KEPT_QUERY.fullmatch(query):
        query = f"query-sha256={digest_bytes(query.encode())}"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def lacks_query(url: str) -> bool:
    """Whether a URL is the stored form of one with a query, so that it cannot be fetched as it is."""
    return _KEPT_QUERY.fullmatch(urllib.parse.urlsplit(url).query) is not None


def service_address(url: str, token_place: str) -> urllib.parse.SplitResult:
    """The parts of a service's address that a user set: a scheme of http and a host, no query, and no token, which belongs into
    `token_place`.  Raises ValueError, whose text says why, where there is more to say than that it is none."""
    parts = urllib.parse.urlsplit(url)
    right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    if "@" in parts.netloc:
        raise ValueError(f"a token belongs into {token_place}")
    if not right or parts.query or parts.fragment or not url.isprintable():
        raise ValueError
    return parts


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs name the same scheme, host and port, as they are written."""
    return urllib.parse.urlsplit(one)[:2] == urllib.parse.urlsplit(other)[:2]


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine, where nobody can read or change the traffic."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def in_clear_text(url: str) -> bool:
    """Whether others can read and change the traffic to a URL: it is not https, and not this machine."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme != "https" and not is_loopback(parts.hostname)
