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
