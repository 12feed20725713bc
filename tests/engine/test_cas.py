"""The content-addressed store."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbuild.canonical import digest_bytes
from llmbuild.engine.cas import MissingBlobError
from llmbuild.engine.store import Store
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.errors import InputError, StoreError
from llmbuild.printable import printable

names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: (
        name not in (".", "..") and len(name.encode()) < 100 and printable(name) == name and not set("\n\t") & set(name)
    )
)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
trees = st.dictionaries(paths, st.tuples(st.binary(max_size=300), st.booleans()), max_size=6).filter(
    lambda tree: not any(a != b and b.startswith(f"{a}/") for a in tree for b in tree)
)


@settings(max_examples=60, deadline=None)
@given(trees)
def test_a_tree_goes_in_and_comes_out_the_same(content: dict[str, tuple[bytes, bool]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        store = Store(root / "store")
        source = root / "source"
        source.mkdir()
        for path, (data, executable) in content.items():
            file = source / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            file.chmod(0o755 if executable else 0o644)
        tree = store.cas.put_tree(source)
        assert tree == store.cas.put_tree(source)
        assert store.cas.get_tree(tree.digest) == tree
        assert Tree.from_bytes(tree.to_bytes()) == tree
        assert [entry.path for entry in tree.files] == sorted(content)
        for form in ("links", "materialized"):
            dest = root / form
            if form == "links":
                for entry in tree.files:
                    store.cas.link_out(entry.digest, dest / entry.path, entry.executable)
            else:
                store.cas.materialize(tree, dest)
            found = {
                path.relative_to(dest).as_posix(): (
                    path.read_bytes(),
                    os.access(path, os.X_OK) and bool(path.stat().st_mode & 0o100),
                )
                for path in dest.rglob("*")
                if path.is_file()
            }
            assert found == content
        # Taking the files in by moving them gives the same tree.
        assert store.cas.put_tree(source, move=True) == tree
        assert store.cas.missing(tree) == []
        store.close()


@given(st.lists(st.binary(max_size=200), max_size=8))
@settings(max_examples=30, deadline=None)
def test_bytes_go_in_and_come_out(blobs: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name) / "store")
        digests = [store.cas.put_bytes(data) for data in blobs]
        assert digests == [digest_bytes(data) for data in blobs]
        assert [store.cas.get_bytes(digest) for digest in digests] == blobs
        store.close()


@pytest.mark.parametrize("size", [10, 200_000])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "delete", "directory"])
def test_a_damaged_blob_is_dropped_and_reported(store: Store, size: int, damage: str) -> None:
    data = os.urandom(size)
    digest = store.cas.put_bytes(data)
    path = store.cas.path(digest)
    reported: list[str] = []
    path.chmod(0o644)
    if damage == "flip":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "truncate":
        path.write_bytes(data[:-1])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        if damage == "directory":
            path.mkdir()
    with store.cas.listening(lambda bad, _path: reported.append(bad)):
        assert not store.cas.has(digest, size)
    with pytest.raises(MissingBlobError):
        store.cas.path(digest)
    assert reported == ([] if damage == "delete" else [digest])
    assert store.cas.corrupt == set(reported)
    assert store.cas.put_bytes(data) == digest
    assert store.cas.get_bytes(digest) == data


def test_reading_bytes_detects_a_flip_behind_an_unchanged_stat(store: Store) -> None:
    digest = store.cas.put_bytes(b"0123456789")
    path = store.cas.path(digest)
    stat = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"0123456788")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(MissingBlobError):
        store.cas.get_bytes(digest)


def test_an_unchanged_blob_is_hashed_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store.cas.put_bytes(os.urandom(100_000))

    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was hashed again")

    monkeypatch.setattr("llmbuild.engine.cas.digest_file", refuse)
    assert store.cas.has(digest)
    store.cas.memo.flush()
    # Another process learns it from the memo, and a link made out of the store does not spoil it.
    other = Store(store.root)
    assert other.cas.has(digest)
    other.cas.link_out(digest, store.root.parent / "out" / "file")
    other.cas.memo.flush()
    assert store.cas.has(digest)
    other.cas.link_out(digest, store.root.parent / "out" / "file")
    assert sorted(path.name for path in (store.root.parent / "out").iterdir()) == ["file"]


def test_a_damaged_memo_costs_only_a_hash(store: Store) -> None:
    digest = store.cas.put_bytes(b"content" * 100)
    store.cas.memo.flush()
    memo = store.root / "verified"
    for text in (b"", b"\xff\xfe\n\n1 2 3\n", memo.read_bytes()[:-20], b"x" * 64 + b" a b c d\n"):
        memo.write_bytes(text)
        assert Store(store.root).cas.has(digest)


def test_lines_of_small_blobs_are_written_together_and_those_of_large_ones_at_once(store: Store) -> None:
    memo = store.root / "verified"
    digests = [store.cas.put_bytes(str(n).encode()) for n in range(10)]
    assert not memo.exists()
    store.close()
    assert [line.split()[0] for line in memo.read_text().splitlines()] == digests
    large = store.cas.put_bytes(bytes(1 << 20))
    assert large in memo.read_text()


def test_the_memo_is_compacted(store: Store) -> None:
    digest = store.cas.put_bytes(b"x")
    store.cas.memo.flush()
    line = (store.root / "verified").read_bytes()
    (store.root / "verified").write_bytes(line * 5000)
    other = Store(store.root)
    other.cas.memo.compact(other.scratch())
    other.close()
    assert (store.root / "verified").read_bytes() == line
    assert store.cas.has(digest)


def test_links_inside_count_as_files_and_links_outside_are_refused(store: Store, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    (directory / "sub").mkdir(parents=True)
    (directory / "sub" / "a").write_text("a")
    (directory / "b").symlink_to("sub/a")
    tree = store.cas.put_tree(directory)
    assert [(entry.path, entry.size) for entry in tree.files] == [("b", 1), ("sub/a", 1)]
    for target in ("/etc/hostname", "../elsewhere", "nowhere", "sub"):
        (tmp_path / "elsewhere").write_text("x")
        (directory / "c").symlink_to(target)
        with pytest.raises(InputError):
            store.cas.put_tree(directory)
        (directory / "c").unlink()
    os.mkfifo(directory / "pipe")
    with pytest.raises(InputError, match="only regular files"):
        store.cas.put_tree(directory)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", ""])
def test_a_tree_that_leads_outside_is_refused(store: Store, path: str) -> None:
    tree = Tree.of([FileEntry(path, digest_bytes(b""), 0)])
    digest = store.cas.put_bytes(tree.to_bytes())
    with pytest.raises(StoreError, match="not a tree"):
        store.cas.get_tree(digest)


def test_what_is_no_tree_is_refused(store: Store) -> None:
    for data in (b"", b"{}x", b"[1]", b"[[1,2]]", b"null"):
        digest = store.cas.put_bytes(data)
        with pytest.raises(StoreError):
            store.cas.get_tree(digest)


def test_blobs_are_read_only(store: Store) -> None:
    assert store.cas.path(store.cas.put_bytes(b"x")).stat().st_mode & 0o777 == 0o444


def test_a_blob_of_another_size_than_a_tree_says_is_missing_and_stays(store: Store) -> None:
    digest = store.cas.put_bytes(b"content")
    for opened in (store, Store(store.root)):
        assert not opened.cas.has(digest, 6)
        assert opened.cas.missing(Tree.of([FileEntry("a", digest, 0)]))
        assert opened.cas.has(digest, 7)
