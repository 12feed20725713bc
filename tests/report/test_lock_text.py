"""Differences of a lock: found as data, shown as lines."""

from __future__ import annotations

from typing import Any

import pytest

from llmbuild.manifest.lock import Lock
from llmbuild.manifest.lockdiff import differences
from llmbuild.report.lock_text import difference_line, difference_lines
from llmbuild.report.style import Style

A, B = "a" * 64, "b" * 64


def lock(sources: dict[str, Any], **toolchain: str) -> Lock:
    made = Lock(sources)
    made.toolchain = toolchain
    return made


def lines(old: Lock, new: Lock, *, partial: bool = False) -> list[str]:
    return [difference_line(each, {"hf:o/m@main": ["m", "n"]}) for each in differences(old, new, partial=partial)]


OLD = lock(
    {
        "hf:o/m@main": {"commit": "1" * 40, "files": {"c.json": {"git-sha1": "2" * 40, "size": 3}}},
        "https://h/x.gguf": {"sha256": A, "files": {"model.gguf": {"sha256": A, "size": 9}}},
        "path:old": {"files": {"x": {"sha256": A, "size": 1}}},
        "pypi:p==1/x.gguf": {"files": {"model.gguf": {"sha256": A, "size": 5}}},
    },
    python="3.11.7",
    tvm=f"0.26.0+sha256.{A}",
    old="1",
)
NEW = lock(
    {
        "hf:o/m@main": {
            "commit": "3" * 40,
            "files": {"c.json": {"git-sha1": "4" * 40, "sha256": B, "size": 4}, "d.json": {"sha256": B, "size": 1}},
        },
        "https://h/x.gguf": {"sha256": B},
        "pypi:p==1/x.gguf": {"files": {"model.gguf": {"sha256": A}}},
        "path:new": {"files": {"x": {"sha256": A, "size": 1500}, "y": {"sha256": A, "size": 1}}},
    },
    python="3.12.1",
    tvm=f"0.27.0+sha256.{B}",
    new="2",
)


def test_every_kind_of_difference() -> None:
    assert lines(OLD, OLD) == lines(NEW, NEW)[1:] == []
    assert lines(OLD, NEW) == [
        "~ hf:o/m@main (m, n): commit 111111111111 -> 333333333333",
        "~ hf:o/m@main: c.json: git-sha1 222222222222 -> 444444444444, size 3 -> 4 bytes",
        "+ hf:o/m@main: d.json: not in the lock",
        "~ https://h/x.gguf: sha256 aaaaaaaaaaaa -> bbbbbbbbbbbb",
        "~ https://h/x.gguf: its files are not in the lock yet",
        "+ path:new: not in the lock (2 files, 1.5 kB)",
        "- path:old: only in the lock, nothing uses it",
        "+ toolchain: new: not in the lock (2)",
        "- toolchain: old: only in the lock, nothing uses it",
        "~ toolchain: python: 3.11.7 -> 3.12.1",
        "~ toolchain: tvm: 0.26.0+sha256.aaaaaaaaaaaa -> 0.27.0+sha256.bbbbbbbbbbbb",
    ]
    assert not any(line.startswith("-") for line in lines(OLD, NEW, partial=True))


@pytest.mark.parametrize("width", [80, 120])
def test_lines_fit(width: int) -> None:
    text = difference_lines(lines(OLD, NEW), Style(width))
    assert all(len(line) <= width for line in text.splitlines())
    assert (
        text.splitlines()[:3]
        == {
            80: [
                "  ~ hf:o/m@main (m, n): commit 111111111111 -> 333333333333",
                "  ~ hf:o/m@main: c.json: git-sha1 222222222222 -> 444444444444, size 3 -> 4",
                "      bytes",
            ],
            120: [
                "  ~ hf:o/m@main (m, n): commit 111111111111 -> 333333333333",
                "  ~ hf:o/m@main: c.json: git-sha1 222222222222 -> 444444444444, size 3 -> 4 bytes",
                "  + hf:o/m@main: d.json: not in the lock",
            ],
        }[width]
    )


def test_signs_are_coloured_on_a_terminal() -> None:
    text = difference_lines(["+ a: not in the lock", "- b", "~ c"], Style(80, color=True))
    assert text == "  \x1b[32m+\x1b[0m a: not in the lock\n  \x1b[31m-\x1b[0m b\n  \x1b[33m~\x1b[0m c"
