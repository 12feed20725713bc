"""Rows at the end of a terminal: what a person sees after each change, and how little is written for it."""

from __future__ import annotations

import io

from llmbuild.report.region import Region
from tests.helpers.screen import Screen


class Shown:
    """A region on a terminal of a size that may change."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.screen = Screen(columns)
        self.lines = lines
        self.stream = io.StringIO()
        self.region = Region(self.stream, lambda: (self.screen.columns, self.lines))

    def text(self) -> str:
        """What is on the screen now; `written` are the bytes since the last look."""
        self.written = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        # A terminal's line discipline returns to the first column.
        self.screen.feed(self.written.replace("\n", "\r\n"))
        return self.screen.text


def test_lines_are_printed_above_rows() -> None:
    shown = Shown()
    shown.region.draw(["one", "two"])
    assert shown.text() == "one\ntwo\n"
    shown.region.print("a line\nand another")
    assert shown.text() == "a line\nand another\none\ntwo\n"
    shown.region.draw(["one", "three", "four"])
    assert shown.text() == "a line\nand another\none\nthree\nfour\n"
    shown.region.draw(["five"])
    assert shown.text() == "a line\nand another\nfive\n"
    shown.region.clear()
    assert shown.text() == "a line\nand another\n"
    shown.region.clear()
    assert shown.text() == "a line\nand another\n"
    assert shown.written == ""


def test_what_is_the_same_is_not_written() -> None:
    shown = Shown()
    shown.region.draw(["one", "two"])
    shown.text()
    shown.region.draw(["one", "two"])
    shown.text()
    assert shown.written == ""
    shown.region.draw(["one", "\x1b[32m2\x1b[0m"])
    assert shown.text() == "one\n2\n"
    assert "one" not in shown.written
    assert shown.written.count("\x1b[?2026h") == 1, "one change, shown at once"
    assert "\x1b[2K" not in shown.written
    assert "\x1b[J" not in shown.written


def test_a_line_longer_than_the_terminal_leaves_nothing_of_the_rows() -> None:
    shown = Shown(40)
    shown.region.draw(["x" * 39, "y" * 39])
    shown.region.print("/a/path/" + "z" * 50)
    assert shown.text() == "/a/path/" + "z" * 32 + "\n" + "z" * 18 + "\n" + "x" * 39 + "\n" + "y" * 39 + "\n"


def test_a_narrower_terminal_keeps_no_part_of_the_old_rows() -> None:
    shown = Shown(80)
    shown.region.print("a line before")
    shown.region.draw(["\x1b[2m" + "x" * 70 + "\x1b[0m", "short", "y" * 50])
    shown.text()
    shown.screen.resize(30)
    shown.region.draw(["x" * 29, "short", "y" * 29])
    assert shown.text() == "a line before\n" + "x" * 29 + "\nshort\n" + "y" * 29 + "\n"
    shown.region.print("a line after")
    assert shown.text() == "a line before\na line after\n" + "x" * 29 + "\nshort\n" + "y" * 29 + "\n"


def test_the_cursor_never_goes_above_a_low_terminal() -> None:
    shown = Shown(80, 4)
    shown.region.draw(["x" * 79, "y" * 79, "z" * 79])
    shown.text()
    shown.screen.resize(20)
    shown.region.draw(["x"])
    shown.text()
    assert "\x1b[3A" in shown.written
