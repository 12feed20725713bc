"""Comparing two outputs of one action: every difference is named, with the first byte that differs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuild.engine.compare import FileDifference, Kind, compare, first_difference
from llmbuild.engine.store import Store


@given(data=st.binary(min_size=1, max_size=300), at=st.integers(0, 299), cut=st.booleans())
def test_the_first_differing_byte(tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int, cut: bool) -> None:
    directory = tmp_path_factory.mktemp("files")
    at %= len(data)
    changed = data[:at] if cut else data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :][::-1]
    (directory / "a").write_bytes(data)
    (directory / "b").write_bytes(changed)
    assert (
        first_difference(directory / "a", directory / "b") == at == first_difference(directory / "b", directory / "a")
    )


def test_a_difference_far_into_a_file(tmp_path: Path) -> None:
    data = bytearray(5_000_000)
    (tmp_path / "a").write_bytes(data)
    data[4_194_304] = 1
    (tmp_path / "b").write_bytes(data)
    assert first_difference(tmp_path / "a", tmp_path / "b") == 4_194_304


def test_all_differences_by_path(store: Store, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "same").write_text("same")
        (tmp_path / name / "sub" / "changed").write_text(f"it is {name}")
        (tmp_path / name / "mode").write_text("mode")
        (tmp_path / name / name).write_text("only here")
    (tmp_path / "two" / "mode").chmod(0o755)
    one, two = store.cas.put_tree(tmp_path / "one"), store.cas.put_tree(tmp_path / "two")
    assert compare(store.cas, one, one) == []
    found = compare(store.cas, one, two)
    assert found == [
        FileDifference("mode", Kind.MODE, None, 4, 4),
        FileDifference("one", Kind.MISSING),
        FileDifference("sub/changed", Kind.CONTENT, 6, 9, 9),
        FileDifference("two", Kind.EXTRA),
    ]
    assert [str(one) for one in found] == [
        "mode: is executable only once",
        "one: was not made again",
        "sub/changed: differs from byte 6 on (9 bytes)",
        "two: was made in addition",
    ]
    assert found[2].to_json() == {
        "path": "sub/changed",
        "kind": "content",
        "offset": 6,
        "expected-size": 9,
        "actual-size": 9,
    }
