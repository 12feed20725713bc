"""TOML with places: the parsed value of a file, and the line of every key in it.

`tomllib` parses the text and decides whether it is valid; it does not report where a value was written.  The scanner here
walks text that `tomllib` has accepted and records the line of every key path, through tables, arrays of tables, dotted and
quoted keys, inline tables and arrays.  Because the text is known to be valid, the scanner only has to find borders.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from llmbuild.errors import UsageError, Where

KeyPath: TypeAlias = tuple[str | int, ...]
"""Keys from the root of a document; an int is an index into an array."""

MOST_BYTES = 4 << 20
"""tomllib takes a second for each megabyte or two."""
MOST_VALUES = 200_000
"""Counted before parsing, and too high: the places of values take more memory than the values, and each part of a
dotted key is a table."""
MOST_DEPTH = 64
"""Levels of a document, and parts of a key: tomllib stores every prefix of a dotted key."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?:^|[\[{{,])[ \t]*+{_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MOST_DEPTH}}}", re.MULTILINE)
_LONG_NUMBER = re.compile(r"(?<![0-9A-Za-z_])[0-9][0-9_]{300}")
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$")
_AT_END = " (at end of document)"


@dataclass(frozen=True, slots=True)
class TomlFile:
    """`file` is the name that errors show; `data` the value that tomllib parsed; `lines` the line (from 1) of each key."""

    file: str
    data: Mapping[str, Any]
    lines: Mapping[KeyPath, int]

    def line(self, path: Sequence[str | int]) -> int | None:
        """The line of a key, or of the nearest written table around it; None for the document itself."""
        key = tuple(path)
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key)

    def where(self, path: Sequence[str | int]) -> Where:
        return Where(self.file, self.line(path), dotted(path) or None)


def dotted(path: Sequence[str | int]) -> str:
    """A key path as a person reads it: `models.smollm2.metadata`, `build[0].platforms[1]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE.fullmatch(part) else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            text += f".{name}" if text else name
    return text


def read_toml(path: Path, file: str | None = None) -> TomlFile:
    """Read and parse a file; raises UsageError when it cannot be read, is not UTF-8 or is not TOML."""
    file = str(path) if file is None else file
    try:
        # A pipe would block whoever opens it.
        if path.is_fifo():
            raise ValueError("it is a pipe")
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise UsageError("no such file", where=file) from None
    except OSError as error:
        raise UsageError("cannot be read", where=file, why=error.strerror) from None
    except ValueError as error:
        # The path is invalid, or a pipe's.
        raise UsageError("cannot be read", where=file, why=str(error)) from None
    return parse_toml_bytes(data, file)


def parse_toml_bytes(data: bytes, file: str) -> TomlFile:
    """Parse bytes; raises UsageError when they are not UTF-8 or not TOML."""
    try:
        # What is cut off at the limit may end inside a character; the text is refused for its size then.
        text = data.decode("utf-8-sig", "strict" if len(data) <= MOST_BYTES else "replace")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError("the file is not UTF-8", where=Where(file, line), fix="save it as UTF-8") from None
    return parse_toml(text, file)


def parse_toml(text: str, file: str) -> TomlFile:
    """Parse text; raises UsageError with the line of the first syntax error."""
    text = text.replace("\r\n", "\n")
    try:
        data = load_toml(text)
    except TomlError as error:
        # By far the most frequent one.
        fix = 'strings stand in quotes: key = "value"' if str(error) == "invalid value" else None
        raise UsageError(f"not valid TOML: {error}", where=Where(file, error.line), fix=fix) from None
    return TomlFile(file, data, _Scanner(text).scan())


class TomlError(ValueError):
    """Text that is no TOML, or exceeds llmbuild's limits; the message has the reason, `line` (from 1) the place, if known."""

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why)
        self.line = line


def load_toml(text: str) -> dict[str, Any]:
    """The value that tomllib parses, with limits on the text, on keys, on levels and on numbers.

    Raises TomlError, for integers of more than 64 bits as well, which TOML does not have.
    """
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise TomlError(f"it has more than {MOST_BYTES} bytes")
    if sum(map(text.count, "[{,=.")) > MOST_VALUES:
        raise TomlError(f"it has more than {MOST_VALUES} values")
    if found := _LONG_KEY.search(text):
        raise TomlError(f"a key has more than {MOST_DEPTH} parts", text.count("\n", 0, found.start()) + 1)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        line = text.count("\n") + 1
        if at := _AT_LINE.search(message):
            line = int(at[1])
            message = message[: at.start()]
        message = message.removesuffix(_AT_END)
        raise TomlError(f"{message[:1].lower()}{message[1:]}", line) from None
    except RecursionError:
        raise TomlError("nested too deeply") from None
    except (ValueError, OverflowError):
        # Python refuses to convert a number of thousands of digits, and a date with one too large.
        place = _LONG_NUMBER.search(text)
        raise TomlError(
            "a number or a date is too large", None if place is None else text.count("\n", 0, place.start()) + 1
        ) from None
    _check_values(data, text)
    return data


def _check_values(data: Mapping[str, Any], text: str) -> None:
    """Raise TomlError for a document of too many levels and for integers that do not fit into 64 bits."""
    level: list[Any] = [data]
    for _ in range(MOST_DEPTH):
        inner: list[Any] = []
        for value in level:
            inner.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        for value in inner:
            if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
                at = text.find(str(value)) if abs(value) < 10**40 else -1
                raise TomlError("a number has more than 64 bits", text.count("\n", 0, at) + 1 if at >= 0 else None)
        level = inner
        if not level:
            return
    if any(isinstance(value, dict | list) for value in level):
        raise TomlError("nested too deeply")


class _Scanner:
    """One pass over valid TOML.  `at` is the offset of the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.counted = 0
        self.lines: dict[KeyPath, int] = {}
        self.elements: dict[KeyPath, int] = {}  # arrays of tables: how many elements were opened so far

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while True:
            self._skip(" \t\n")
            if self.at >= len(self.text):
                return self.lines
            if self.text.startswith("[[", self.at):
                table = self._header(2)
            elif self.text[self.at] == "[":
                table = self._header(1)
            else:
                self._pair(table)

    def _line(self) -> int:
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def _mark(self, path: KeyPath) -> None:
        self.lines.setdefault(path, self._line())

    def _skip(self, blank: str) -> None:
        """Go past white space and comments."""
        while self.at < len(self.text):
            if self.text[self.at] in blank:
                self.at += 1
            elif self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
                if "\n" not in blank:
                    return
            else:
                return

    def _header(self, brackets: int) -> KeyPath:
        self.at += brackets
        path: KeyPath = ()
        keys = self._keys()
        self.at += brackets
        for depth, key in enumerate(keys):
            path = (*path, key)
            if brackets == 2 and depth == len(keys) - 1:
                self._mark(path)
                self.elements[path] = self.elements.get(path, 0) + 1
            self._mark(path)
            if path in self.elements:
                path = (*path, self.elements[path] - 1)
                self._mark(path)
        return path

    def _keys(self) -> list[str]:
        """A dotted key; leaves `at` on the character after it and its white space."""
        keys = []
        while True:
            self._skip(" \t")
            if self.text[self.at] in "\"'":
                start = self.at
                self._string()
                keys.append(tomllib.loads("k = " + self.text[start : self.at])["k"])
            else:
                found = _BARE.match(self.text, self.at)
                assert found is not None, "tomllib accepted a key that is neither bare nor quoted"
                keys.append(found[0])
                self.at = found.end()
            self._skip(" \t")
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def _pair(self, table: KeyPath) -> None:
        self._skip(" \t")
        line = self._line()
        path = table
        for key in self._keys():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self.at += 1  # The equals sign.
        self._skip(" \t")
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        first = self.text[self.at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}\n#":
                self.at += 1

    def _array(self, path: KeyPath) -> None:
        self.at += 1
        index = 0
        while True:
            self._skip(" \t\n,")
            if self.text[self.at] == "]":
                self.at += 1
                return
            element = (*path, index)
            self._mark(element)
            self._value(element)
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        self.at += 1
        while True:
            self._skip(" \t\n,")
            if self.text[self.at] == "}":
                self.at += 1
                return
            self._pair(path)

    def _string(self) -> None:
        """Go past a string of any of the four kinds."""
        quote = self.text[self.at]
        if self.text.startswith(quote * 3, self.at):
            self.at += 3
            while not self.text.startswith(quote * 3, self.at):
                self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
            self.at += 3
            # Up to two quotation marks may stand directly before the closing three.
            while self.at < len(self.text) and self.text[self.at] == quote:
                self.at += 1
            return
        self.at += 1
        while self.text[self.at] != quote:
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += 1
