"""The lock file: what is written is read again, and what is damaged is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuild.errors import StoreError, UsageError
from llmbuild.manifest.lock import Lock, read_lock, write_lock

hexadecimal = "0123456789abcdef"
digests = st.text(hexadecimal, min_size=64, max_size=64)
commits = st.text(hexadecimal, min_size=40, max_size=40)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
entries = st.one_of(
    st.fixed_dictionaries({"sha256": digests}, optional={"size": st.integers(0, 1 << 60)}),
    st.fixed_dictionaries({"git-sha1": commits}, optional={"size": st.integers(0, 1 << 60)}),
)
pins = st.fixed_dictionaries({"commit": commits, "files": st.dictionaries(names, entries, min_size=1, max_size=3)})


@given(st.dictionaries(names, pins, max_size=3), st.dictionaries(names, names, max_size=3))
def test_round_trip(sources: dict[str, Any], toolchain: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "llmbuild.lock"
        lock = Lock(sources)
        lock.toolchain = toolchain
        write_lock(file, lock)
        again = read_lock(file)
        assert (again.sources, again.toolchain) == (sources, toolchain)
        assert again.to_toml() == file.read_text()
        assert [path.name for path in Path(directory).iterdir()] == ["llmbuild.lock"]


def test_the_text_does_not_depend_on_the_order_of_pinning() -> None:
    pin = {"commit": "a" * 40}
    one, two = Lock(), Lock()
    for lock, order in ((one, "ab"), (two, "ba")):
        for name in order:
            lock.put(f"hf:org/{name}@main", pin)
    assert one.to_toml() == two.to_toml()


def test_changed() -> None:
    lock = Lock()
    lock.put("hf:a@main", {"commit": "a" * 40})
    assert lock.changed
    lock.changed = False
    lock.put("hf:a@main", {"commit": "a" * 40})
    lock.forget("hf:b@main")
    assert not lock.changed
    lock.forget("hf:a@main")
    assert lock.changed


def test_no_file_is_an_empty_lock(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "llmbuild.lock").sources == {}


GOOD = 'version = 1\n[sources."hf:a/b@main"]\ncommit = "' + "a" * 40 + '"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version = ", "not valid TOML"),
        ("version = 2\n", "this llmbuild reads version 1"),
        ("", "has version None"),
        (GOOD + "comit = 1\n", "did you mean 'commit'"),
        (GOOD.replace("aaaa", "zzzz"), "40 lower-case hexadecimal digits"),
        ('version = 1\n[sources."hf:a/b@main"]\n', "has no commit"),
        (GOOD + "files = 3\n", "must be a table"),
        (GOOD + "files.x = {}\n", "must have a sha256 or a git-sha1"),
        (GOOD + 'files.x = { sha256 = "abc" }\n', "must have a sha256 or a git-sha1"),
        (GOOD + 'files.x = { git-sha1 = "' + "b" * 40 + '", size = -1 }\n', "must be a number of bytes"),
        (GOOD + "[toolchain]\nx = 1\n", "must be a string"),
        ("version = 1\nsource = {}\n", "did you mean 'sources'"),
    ],
)
def test_damaged_files(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "llmbuild.lock").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_lock(tmp_path / "llmbuild.lock")
    assert said in str(caught.value)
    assert "llmbuild.lock" in str(caught.value)


def test_a_lock_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        write_lock(tmp_path / "gone" / "llmbuild.lock", Lock())
