"""What a terminal may show of a text from outside."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuild.errors import UsageError
from llmbuild.printable import either, printable, printable_json, several
from llmbuild.report.errors import render_error
from llmbuild.report.style import Style


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07\x1b[2Jgone", r"\x1b]0;title\x07\x1b[2Jgone"),
        ("\x9b2J", r"\x9b2J"),
        ("over\rwritten", r"over\x0dwritten"),
        ("two\r\nlines\n\tand a tab", "two\nlines\n\tand a tab"),
        ("left\u202eright\u2069", r"left\u202eright\u2069"),
        ("half \udcff", r"half \udcff"),
        ("plain é 漢字 \U0001f600", "plain é 漢字 \U0001f600"),
    ],
)
def test_control_characters_are_seen(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_what_is_shown_has_no_control_characters_and_stays(text: str) -> None:
    shown = printable(text)
    assert not [letter for letter in shown if unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t"]
    assert printable(shown) == shown
    shown.encode()


@given(st.text(), st.booleans())
def test_json_is_the_same_value(text: str, ascii_only: bool) -> None:
    shown = printable_json(json.dumps([text], ensure_ascii=ascii_only, indent=2))
    assert json.loads(shown) == [text]
    assert printable(shown) == shown


def test_errors_are_printable_in_every_part() -> None:
    error = UsageError("what\x1b[2J", where="file\x1b]0;x\x07", why="why\x9b", fix="fix\x7f")
    assert render_error(error, Style()) == "error: file\\x1b]0;x\\x07: what\\x1b[2J\n  why: why\\x9b\n  fix: fix\\x7f"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("", ""),
        ("a", "a"),
        ("ab", "a and b"),
        ("abc", "a, b and c"),
        ("abcd", "a, b, c and 1 more"),
        ("abcde", "a, b, c and 2 more"),
    ],
)
def test_several_names_are_listed_up_to_a_count(names: str, text: str) -> None:
    assert several(list(names), 3) == text


def test_alternatives() -> None:
    assert [either("abc"[:count]) for count in (1, 2, 3)] == ["a", "a or b", "a, b or c"]
