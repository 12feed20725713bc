"""The position scanner: every key path of any TOML document has the line where it was written."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbuild.errors import UsageError
from llmbuild.tomlfile import MOST_BYTES, KeyPath, dotted, parse_toml, read_toml

EXAMPLE = """\
# A comment with [brackets] and "quotes".
title = "a # b"
"quoted key".'x.y' = 1
[ a . b ]
c = [ # why
  1,
  { d = "]", e = [2, 3] },
]
text = \"\"\"
[not.a.table]
x = 1 \\\"\"\" still ""\"\"\"
raw = '''
'' [no] ''''
last = 1979-05-27 07:32:00
[[list]]
name = 'x'
[list.sub]
k = true
[[list.deep]]
n = 1
[[list.deep]]
n = 2
[[list]]
[[list.deep]]
n = 3
"""


def test_lines_of_every_kind_of_key() -> None:
    file = parse_toml(EXAMPLE, "x.toml")
    assert {
        ("title",): 2,
        ("quoted key", "x.y"): 3,
        ("a", "b"): 4,
        ("a", "b", "c"): 5,
        ("a", "b", "c", 0): 6,
        ("a", "b", "c", 1, "d"): 7,
        ("a", "b", "c", 1, "e", 1): 7,
        ("a", "b", "text"): 9,
        ("a", "b", "raw"): 12,
        ("a", "b", "last"): 14,
        ("list",): 15,
        ("list", 0): 15,
        ("list", 0, "name"): 16,
        ("list", 0, "sub", "k"): 18,
        ("list", 0, "deep", 1, "n"): 22,
        ("list", 1): 23,
        ("list", 1, "deep", 0, "n"): 25,
    }.items() <= file.lines.items()


def test_a_missing_key_has_the_line_of_its_table() -> None:
    file = parse_toml("[a]\n[a.b]\nx = 1\n", "x.toml")
    assert file.line(("a", "b", "missing", 3)) == 2
    assert file.line(("missing",)) is None
    assert str(file.where(("a", "b", "c d"))) == 'x.toml:2: a.b."c d"'
    assert str(file.where(())) == "x.toml"


@pytest.mark.parametrize(
    ("path", "text"),
    [((), ""), (("a", 0, "b"), "a[0].b"), (("a.b", "c"), '"a.b".c'), (('q"', "x"), '"q\\"".x')],
)
def test_dotted(path: KeyPath, text: str) -> None:
    assert dotted(path) == text


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb = \n", 2), ("a = 1\n[b", 2), ("a = '''\n\n", 3), ("a = 1\na = 2\n", 2), ("\r\n\r\n?", 3)],
)
def test_syntax_errors_have_their_line(text: str, line: int) -> None:
    with pytest.raises(UsageError, match="not valid TOML") as caught:
        parse_toml(text, "x.toml")
    assert caught.value.where is not None
    assert caught.value.where.startswith(f"x.toml:{line}")


def test_a_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\nb = '''\r\n'''\r\nc = 3\r\n")
    assert read_toml(path).line(("c",)) == 4


def test_deep_nesting_is_an_error_and_not_a_crash() -> None:
    with pytest.raises(UsageError):
        parse_toml("a = " + "[" * 100_000, "x.toml")


# --- Any document: written here line by line, so that the right answer is known. ---

_keys = st.text(st.sampled_from("ab-_1"), min_size=1, max_size=3) | st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.just("\t"), max_size=4
)
_texts = st.text(st.sampled_from("ab ,#=[]{}\"'\\\n\t"), max_size=8)
_scalars = st.integers(-9, 99) | st.booleans() | _texts
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3), max_leaves=8
)
_document = st.dictionaries(
    _keys, _values | st.lists(st.dictionaries(_keys, _values, max_size=3), min_size=1, max_size=3)
)


@dataclass
class _Writer:
    """Writes a value as TOML in a style that `draw` chooses, and notes the line of each key."""

    draw: Any
    text: str = ""
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def put(self, text: str) -> None:
        self.text += text

    def mark(self, path: KeyPath) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def one_of(self, *choices: str) -> str:
        return self.draw(st.sampled_from(choices))

    def basic(self, text: str) -> str:
        escaped = "".join({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t"}.get(c, c) for c in text)
        return f'"{escaped}"'

    def key(self, key: str) -> str:
        forms = [self.basic(key)]
        if key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key):
            forms.append(key)
        if "'" not in key:
            forms.append(f"'{key}'")
        return self.one_of(*forms)

    def string(self, text: str) -> str:
        forms = [self.basic(text)]
        forms.append('"""\n' + text.replace("\\", "\\\\").replace('"""', '""\\"').removesuffix('"') + '"""')
        if text.endswith('"'):
            forms.pop()
        if "'" not in text:
            forms.append(f"'''\n{text}'''")
            if "\n" not in text:
                forms.append(f"'{text}'")
        return self.one_of(*forms)

    def value(self, value: Any, path: KeyPath) -> None:
        if isinstance(value, bool):
            self.put("true" if value else "false")
        elif isinstance(value, int):
            self.put(str(value))
        elif isinstance(value, str):
            self.put(self.string(value))
        elif isinstance(value, list):
            self.put("[")
            for index, item in enumerate(value):
                self.put(self.one_of("", " ", "\n", " # ] } comment\n\t"))
                self.mark((*path, index))
                self.value(item, (*path, index))
                self.put(self.one_of("", " ", "\n") + ("," if index < len(value) - 1 else self.one_of("", ",")))
            self.put(self.one_of("", "\n", "# end [\n") + "]")
        else:
            self.put("{")
            for index, (key, item) in enumerate(value.items()):
                self.put(", " if index else self.one_of("", " "))
                self.mark((*path, key))
                self.put(self.key(key) + self.one_of("=", " = "))
                self.value(item, (*path, key))
            self.put(self.one_of("", " ") + "}")

    def pairs(self, table: dict[str, Any], path: KeyPath) -> None:
        for key, item in table.items():
            self.put(self.one_of("", "\n", "  ", "# [x]\n"))
            self.mark((*path, key))
            self.put(self.key(key) + self.one_of("=", " =\t"))
            self.value(item, (*path, key))
            self.put(self.one_of("\n", " # comment = 1\n"))

    def document(self, data: dict[str, Any]) -> None:
        as_table = {key: self.draw(st.booleans()) for key, value in data.items() if _tables(value)}
        self.pairs({key: value for key, value in data.items() if not as_table.get(key)}, ())
        for key in (key for key, chosen in as_table.items() if chosen):
            elements = data[key] if isinstance(data[key], list) else [data[key]]
            for index, element in enumerate(elements):
                many = isinstance(data[key], list)
                self.mark((key,))
                path: KeyPath = (key, index) if many else (key,)
                self.mark(path)
                left, right = ("[[", "]]") if many else ("[", "]")
                self.put(left + self.one_of("", " ") + self.key(key) + self.one_of("", " ") + right + "\n")
                self.pairs(element, path)


def _tables(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)
    )


@settings(deadline=None)
@given(_document, st.data())
def test_any_document(data: dict[str, Any], choices: st.DataObject) -> None:
    writer = _Writer(choices.draw)
    writer.document(data)
    assert tomllib.loads(writer.text) == data
    assert parse_toml(writer.text, "x.toml").lines == writer.lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = " + "9" * 5000, "x.toml:2: not valid TOML: a number or a date is too large"),
        ("x = 1\ny = " + "9" * 20, "x.toml:2: not valid TOML: a number has more than 64 bits"),
        ("x = 1\ny = [{z = -9223372036854775809}]", "x.toml:2: not valid TOML: a number has more than 64 bits"),
        ("x = 0x" + "f" * 5000, "a number has more than 64 bits"),
        ("x = 1\n" + "a." * 70 + "b = 1", "x.toml:2: not valid TOML: a key has more than 64 parts"),
        ("[" + "'a' . " * 70 + "b]", "x.toml:1: not valid TOML: a key has more than 64 parts"),
        ("x = " + "[" * 65 + "]" * 65, "nested too deeply"),
        ("x = " + "[" * 100_000, "nested too deeply"),
        ("x = [" + "{}," * 100_001 + "]", "more than 200000 values"),
        ("".join(f"[a{index}.b.c.d]\n" for index in range(50_001)), "more than 200000 values"),
        ("# " + "x" * MOST_BYTES, "more than 4194304 bytes"),
        ("# " + "é" * (MOST_BYTES // 2), "more than 4194304 bytes"),
    ],
)
def test_what_is_too_large_is_one_error(tmp_path: Path, text: str, said: str) -> None:
    for provoke in (lambda: parse_toml(text, "x.toml"), lambda: read_toml(_written(tmp_path, text), "x.toml")):
        with pytest.raises(UsageError) as refused:
            provoke()
        assert said in str(refused.value)


def _written(directory: Path, text: str) -> Path:
    (directory / "x.toml").write_text(text, encoding="utf-8")
    return directory / "x.toml"


def test_the_largest_that_is_taken() -> None:
    text = "a = 9223372036854775807\nb = -9223372036854775808\nc = '" + "a." * 100 + "'\nd = " + "[" * 60 + "]" * 60
    assert parse_toml(text, "x.toml").data["a"] == (1 << 63) - 1


def test_a_file_that_cannot_be_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("a\0b"), tmp_path / "pipe"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_toml(path)
