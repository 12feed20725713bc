"""URLs: what is secret in them is neither shown nor kept."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuild.urls import in_clear_text, is_loopback, kept, lacks_query, shown

SECRET = "X-Amz-Signature=SECRET"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


@pytest.mark.parametrize(
    ("url", "as_shown"),
    [
        ("https://me:word@host:8/a/b?sig=x#y", "https://host:8/a/b"),
        ("https://me:word@[host/a?sig=x", "[host/a"),
        ("http://[::1", "http://[::1"),
    ],
)
def test_shown(url: str, as_shown: str) -> None:
    assert shown(url) == as_shown


@pytest.mark.parametrize(
    ("url", "as_kept"),
    [
        ("https://host/x.gguf", "https://host/x.gguf"),
        ("https://host/x.gguf?", "https://host/x.gguf"),
        ("https://host/x.gguf#part", "https://host/x.gguf"),
        (f"https://me:word@host:8/x.gguf?{SECRET}#y", f"https://host:8/x.gguf?query-sha256={DIGEST}"),
    ],
)
def test_kept(url: str, as_kept: str) -> None:
    assert kept(url) == as_kept
    assert kept(as_kept) == as_kept
    assert lacks_query(as_kept) == ("?" in as_kept)
    assert not lacks_query(url)


@given(st.text(max_size=30))
def test_nothing_of_a_query_is_kept(query: str) -> None:
    url = f"https://host/x.gguf?{query}"
    assert kept(kept(url)) == kept(url)
    assert kept(url).partition("?query-sha256=")[0] == "https://host/x.gguf"


@pytest.mark.parametrize(
    ("url", "clear"),
    [
        ("https://host/", False),
        ("http://host/", True),
        ("http://localhost:1/", False),
        ("http://127.1.2.3/", False),
        ("http://[::1]:8/", False),
        ("http://127.0.0.1.host/", True),
        ("http://10.0.0.1/", True),
        ("http://", True),
    ],
)
def test_in_clear_text(url: str, clear: bool) -> None:
    assert in_clear_text(url) is clear


def test_no_host_is_not_this_machine() -> None:
    assert not is_loopback(None)
