"""A terminal just large enough for tests: what a person would see after these bytes (ECMA-48 control functions)."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b\]8;[^\x1b]*\x1b\\|([\r\n])|([^\x1b\r\n])")


class Screen:
    """Lines of text with a cursor.  Colours are forgotten; lines that pass the width wrap, as on a terminal."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._lines: list[list[str]] = [[]]
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        position = 0
        while position < len(text):
            found = _TOKEN.match(text, position)
            assert found is not None, f"not understood: {text[position : position + 20]!r}"
            position = found.end()
            self._control(found) if found[2] else self._character(found[3] or found[4] or "")

    @property
    def text(self) -> str:
        """All lines, without spaces at their ends and without empty lines at the end."""
        return "\n".join("".join(line).rstrip() for line in self._lines).rstrip("\n") + "\n"

    def resize(self, columns: int) -> None:
        """Become narrower, as terminals do that break the lines which have no room any more (VTE, kitty, foot, tmux)."""
        assert columns <= self.columns
        lines: list[list[str]] = []
        for number, line in enumerate(self._lines):
            if number == self._row:
                # The cursor stays behind the same character.
                self._row, moved = len(lines) + max(0, self._column - 1) // columns, True
                self._column -= max(0, self._column - 1) // columns * columns
            parts = [line[at : at + columns] for at in range(0, max(1, len("".join(line).rstrip())), columns)]
            lines += parts
        assert moved
        self._lines, self.columns = lines, columns

    def _character(self, letter: str) -> None:
        if letter == "\r":
            self._column = 0
        elif letter == "\n":
            self._down()
        elif letter:
            if self._column == self.columns:
                self._down()
                self._column = 0
            line = self._lines[self._row]
            line += [" "] * (self._column + 1 - len(line))
            line[self._column] = letter
            self._column += 1

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._lines):
            self._lines.append([])

    def _control(self, found: re.Match[str]) -> None:
        number = int(found[1]) if found[1].isdigit() else 0
        match found[2]:
            case "A":
                self._row = max(0, self._row - (number or 1))
            case "K" if number == 2:
                self._lines[self._row] = []
            case "K":
                del self._lines[self._row][self._column :]
            case "J" if not number:
                del self._lines[self._row][self._column :], self._lines[self._row + 1 :]
            case "m" | "h" | "l":
                pass
            case other:
                raise AssertionError(f"the control function {other} is not understood")
