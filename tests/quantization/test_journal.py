"""A journal's lines count when they are what a conversion writes, and are dropped when they are anything else."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmbuild.quantization.journal import JOURNAL, Journal
from tests.helpers.replaced_parts import mutations

SHARD = b"1234"
LINE = {"path": "params_shard_0.bin", "nbytes": len(SHARD), "md5": hashlib.md5(SHARD).hexdigest()}


def complete(directory: Path, content: bytes) -> dict[str, tuple[int, str]]:
    (directory / "params_shard_0.bin").write_bytes(SHARD)
    (directory / JOURNAL).write_bytes(content)
    with ThreadPoolExecutor(1) as pool:
        return dict(Journal(directory, pool).complete)


def test_any_value_in_any_place_of_a_line_is_taken_or_dropped(tmp_path: Path) -> None:
    whole = {LINE["path"]: (LINE["nbytes"], LINE["md5"])}
    assert complete(tmp_path, json.dumps(LINE).encode()) == whole
    lines = [json.dumps(value) for value in mutations(LINE) if value != LINE]
    assert complete(tmp_path, "\n".join(lines).encode()) == {}
    assert complete(tmp_path, "\n".join([*lines, json.dumps(LINE)]).encode()) == whole


@pytest.mark.parametrize(
    "name", ["a\0b", "../params_shard_0.bin", "/etc/passwd", "x" * 5000, "\\ud800", "params_shard_1"]
)
def test_a_line_of_another_name(tmp_path: Path, name: str) -> None:
    line = json.dumps(LINE | {"path": name}).replace("\\\\ud800", "\\ud800")
    assert complete(tmp_path, line.encode()) == {}


def test_lines_that_are_no_json(tmp_path: Path) -> None:
    for line in (b"[" * 100_000, b"\xff", b"9" * 5000, b'{"path": ' + b"9" * 5000 + b"}"):
        assert len(complete(tmp_path, line + b"\n" + json.dumps(LINE).encode())) == 1
