"""The text task: a copy of what was planned, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.canonical import digest_bytes
from llmbuild.engine.kind import Job
from llmbuild.errors import InputError
from llmbuild.tasks.text import KIND, TEXT


def run(text: Path, planned: bytes, out: Path) -> None:
    out.mkdir()
    KIND.run(Job({"sha256": digest_bytes(planned)}, {}, {"path": str(text)}, out, out, lambda *_: None))


def test_the_text_as_it_is(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_bytes("é, 1\r\n".encode())
    run(text, text.read_bytes(), tmp_path / "out")
    assert (tmp_path / "out" / TEXT).read_bytes() == text.read_bytes()


def test_a_text_that_changed_or_went_after_the_plan_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("now")
    with pytest.raises(InputError, match="has changed since it was looked at"):
        run(text, b"before", tmp_path / "out")
    text.unlink()
    with pytest.raises(InputError, match="cannot be read") as caught:
        run(text, b"before", tmp_path / "gone")
    assert caught.value.why == "No such file or directory"
    assert not any((tmp_path / "out").iterdir())


def test_a_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_bytes("é".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        run(text, text.read_bytes(), tmp_path / "out")
