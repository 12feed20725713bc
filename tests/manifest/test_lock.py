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
from llmbuild.urls import kept

hexadecimal = "0123456789abcdef"
digests = st.text(hexadecimal, min_size=64, max_size=64)
commits = st.text(hexadecimal, min_size=40, max_size=40)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
entries = st.one_of(
    st.fixed_dictionaries({"sha256": digests}, optional={"size": st.integers(0, 1 << 60)}),
    st.fixed_dictionaries({"git-sha1": commits}, optional={"size": st.integers(0, 1 << 60)}),
)
file_names = names.map(lambda name: name.replace("\0", "0").replace("/", "%").replace(".", "_"))
files = st.dictionaries(st.lists(file_names, min_size=1, max_size=2).map("/".join), entries, min_size=1, max_size=3)
pins = st.fixed_dictionaries({"commit": commits, "files": files})

# What a hub, a wheel or a compiler could say, right and wrong.
texts = st.one_of(names, st.text(max_size=3), st.just("\udcff"), st.just("../x"), st.just("/x"), digests, commits)
things = st.one_of(st.none(), st.booleans(), st.integers(-(1 << 70), 1 << 70), st.just(10**400), st.floats(), texts)
odd_entries = st.dictionaries(st.sampled_from(["size", "sha256", "git-sha1", "mode"]), things, max_size=3)
odd_files = st.dictionaries(texts, st.one_of(entries, odd_entries, things), max_size=3)
odd_pins = st.one_of(
    pins,
    things,
    st.fixed_dictionaries({}, optional={"commit": things, "files": st.one_of(odd_files, files), "x": things}),
)


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


@given(st.one_of(things, st.dictionaries(texts, odd_pins, max_size=3)), st.dictionaries(texts, things, max_size=2))
def test_what_is_written_is_read_again_or_it_is_not_written(sources: Any, toolchain: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "llmbuild.lock"
        file.write_text(GOOD)
        lock = Lock()
        lock.sources, lock.toolchain = sources, toolchain
        try:
            write_lock(file, lock)
        except StoreError as error:
            assert "no lock file can hold this" in str(error)
            assert file.read_text() == GOOD
        else:
            again = read_lock(file)
            assert (again.sources, again.toolchain) == (sources, toolchain)
            assert not again.changed
        assert [path.name for path in Path(directory).iterdir()] == ["llmbuild.lock"]


def test_a_name_that_is_no_text_is_not_written(tmp_path: Path) -> None:
    lock = Lock({"path:model": {"files": {"y\udcff.safetensors": {"sha256": "a" * 64}}}})
    with pytest.raises(StoreError, match="must be text"):
        write_lock(tmp_path / "llmbuild.lock", lock)


def test_a_number_from_a_hub_that_no_lock_can_hold(tmp_path: Path) -> None:
    lock = Lock()
    lock.put("hf:a@main", {"commit": "a" * 40, "files": {"x": {"sha256": "b" * 64, "size": -1}}})
    with pytest.raises(StoreError, match="size: must be a number of bytes"):
        write_lock(tmp_path / "llmbuild.lock", lock)
    assert not (tmp_path / "llmbuild.lock").exists()


@pytest.mark.parametrize("identity", ["x," + "a." * 70 + "a", "x" * 5000])
def test_the_reader_has_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: str) -> None:
    """It looks for what is too long without regard to quotes, and takes files up to a size."""
    monkeypatch.setattr("llmbuild.tomlfile.MOST_BYTES", 4096)
    (tmp_path / "llmbuild.lock").write_text(GOOD)
    lock = Lock()
    lock.record_tool("linker", identity)
    with pytest.raises(StoreError, match="no lock file can hold this"):
        write_lock(tmp_path / "llmbuild.lock", lock)
    assert (tmp_path / "llmbuild.lock").read_text() == GOOD


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
        (GOOD + "files = {}\n", 'llmbuild.lock:4: sources."hf:a/b@main".files: is empty'),
        (GOOD + f'files."../x" = {{ sha256 = "{"b" * 64}" }}\n', "the name leads out of its directory"),
        (GOOD + f'files."/x" = {{ sha256 = "{"b" * 64}" }}\n', "the name leads out of its directory"),
        (GOOD + f'files."a//x" = {{ sha256 = "{"b" * 64}" }}\n', "the name is not the name of a file"),
        (GOOD + f'files."x\\u0000" = {{ sha256 = "{"b" * 64}" }}\n', "the name is not the name of a file"),
        (GOOD + f'files."{"x" * 256}" = {{ sha256 = "{"b" * 64}" }}\n', "the name is longer than 255 bytes"),
        (GOOD + 'files.x = { git-sha1 = "' + "b" * 40 + '", size = ' + "9" * 20 + " }\n", "more than 64 bits"),
        (GOOD + "size = " + "9" * 5000, "llmbuild.lock:4: not valid TOML"),
        ("version = 1\nx = " + "[" * 100_000, "not valid TOML"),
        (GOOD + '[sources."https://[a/x.gguf?b"]\n', "is not a URL"),
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


QUERY = "X-Amz-Signature=SECRET"
WITH_QUERY = f"""\
version = 1
[sources."https://host/x.gguf?{QUERY}#gguf"]
sha256 = "{"a" * 64}"
[sources."path:a?b"]
"""


def test_a_query_that_an_old_lock_kept_is_not_written_again(tmp_path: Path) -> None:
    file = tmp_path / "llmbuild.lock"
    file.write_text(WITH_QUERY)
    lock = read_lock(file)
    assert lock.changed
    assert set(lock.sources) == {f"{kept(f'https://host/x.gguf?{QUERY}')}#gguf", "path:a?b"}
    write_lock(file, lock)
    assert "SECRET" not in file.read_text()
    again = read_lock(file)
    assert (again.sources, again.changed) == (lock.sources, False)
