"""Requests: what is believed of headers, and where credentials go."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuild.errors import FetchError
from llmbuild.sources.request import header_number, netrc_credentials, redirected


@given(st.one_of(st.text(), st.text("0123456789²٣ -+_.e")))
def test_a_number_is_ascii_digits_of_bounded_length(text: str) -> None:
    number = header_number(text)
    right = text.strip(" \t")
    if number is None:
        assert not (right.isascii() and right.isdigit()) or len(right) > 18
    else:
        assert number == int(right) < 10**18


@pytest.mark.parametrize(
    ("location", "there"),
    [("/b", "https://a/b"), ("//b/c", "https://b/c"), ("https://b/c?d", "https://b/c?d"), ("", "https://a/x?y")],
)
def test_where_a_redirect_leads(location: str, there: str) -> None:
    assert redirected("https://a/x?y", location) == there


@pytest.mark.parametrize("location", ["http://a/x", "http://127.0.0.1/x", "file:///etc/passwd", "ftp://a/x", "data:,x"])
def test_a_redirect_does_not_lead_away_from_https(location: str) -> None:
    with pytest.raises(FetchError, match="it redirects from https to"):
        redirected("https://a/x", location)


def test_a_netrc_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".netrc").write_bytes(b"machine a login \xff password \xff\n")
    assert netrc_credentials("b") == {}
