"""Large files that stay where their owner has them: records, reflinks, and what counts as there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from llmbuild.canonical import Digest, digest_bytes, digest_file
from llmbuild.engine import fs
from llmbuild.engine.cas import MissingBlobError
from llmbuild.engine.places import Keeper, Place, read_place
from llmbuild.engine.store import Store
from llmbuild.engine.tree import Tree
from llmbuild.engine.upkeep.audit import audit

DATA = os.urandom(3_000_000)


class Reflinks(fs.FileSystem):
    """A file system that clones."""

    def clone(self, source_fd: int, dest_fd: int) -> None:
        os.write(dest_fd, os.pread(source_fd, os.fstat(source_fd).st_size, 0))

    def hard_link(self, source: fs.StrPath, dest: fs.StrPath) -> None:
        raise AssertionError("a file that users edit is never linked")


class NoReflinks(Reflinks):
    def clone(self, source_fd: int, dest_fd: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")


@pytest.fixture(params=[Reflinks, NoReflinks])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[fs.FileSystem]:
    monkeypatch.setattr(fs, "current", request.param())
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fs, "current", NoReflinks())


def keep(store: Store, path: Path, name: str = "model.safetensors") -> Tree:
    """What a task does that puts one file out without copying it."""
    with store.work_dir() as work:
        keeper = Keeper(work / "out")
        read: list[int] = []
        assert keeper(path, name, read.append) == digest_file(path)
        assert sum(read) == path.stat().st_size
        return store.cas.put_tree(work / "out", move=True, kept=keeper.kept)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "user" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes(DATA)
    return path


def promised(store: Store, tree: Tree) -> bool:
    return all(store.cas.places.promises(entry.digest, entry.size) for entry in store.cas.missing(tree))


def test_the_tree_is_the_same_however_it_came(store: Store, file: Path, file_system: type[fs.FileSystem]) -> None:
    tree = keep(store, file)
    plain = Store(store.root.parent / "other").cas.put_tree(file.parent)
    assert tree == plain
    cloned = file_system is Reflinks
    assert store.cas.has(digest_bytes(DATA)) is cloned
    assert promised(store, tree)
    blobs = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
    assert cloned or blobs < 10_000
    # An edit of the user's file reaches no blob.
    with file.open("r+b") as stream:
        stream.write(b"other")
    assert store.cas.missing(tree) == ([] if cloned else list(tree.files))
    assert file.stat().st_nlink == 1


def test_a_blob_that_is_there_needs_no_record(store: Store, file: Path, in_place: None) -> None:
    store.cas.put_bytes(DATA)
    tree = keep(store, file)
    assert store.cas.missing(tree) == []
    assert list(store.cas.places.all()) == []


def test_a_task_that_checks_reads_the_file_itself_and_others_a_copy(
    store: Store, file: Path, tmp_path: Path, in_place: None
) -> None:
    tree = keep(store, file)
    checks: dict[Path, object] = {}
    store.cas.materialize(tree, tmp_path / "checked", checks)  # type: ignore[arg-type]
    laid = tmp_path / "checked" / "model.safetensors"
    assert laid.readlink() == file
    assert list(checks) == [laid]
    store.cas.materialize(tree, tmp_path / "copied")
    copy = tmp_path / "copied" / "model.safetensors"
    assert not copy.is_symlink()
    assert copy.read_bytes() == DATA
    store.cas.link_out(tree.files[0].digest, tmp_path / "out" / "file")
    assert (tmp_path / "out" / "file").read_bytes() == DATA
    # Nobody is given a path that may change: that is for blobs.
    with pytest.raises(MissingBlobError):
        store.cas.path(tree.files[0].digest)


@pytest.mark.parametrize("change", ["gone", "edited", "touched", "unreadable", "directory"])
def test_a_file_that_is_not_as_it_was_is_missing_and_still_promised(
    store: Store, file: Path, tmp_path: Path, in_place: None, change: str
) -> None:
    tree = keep(store, file)
    if change == "edited":
        file.write_bytes(DATA[::-1])
    elif change == "touched":
        os.utime(file, ns=(1, 1))
    elif change == "unreadable":
        if os.geteuid() == 0:
            pytest.skip("root reads everything")
        file.chmod(0)
    else:
        file.unlink()
        if change == "directory":
            file.mkdir()
    assert promised(store, tree)
    for checks in ({}, None):
        with pytest.raises(MissingBlobError) as caught:
            store.cas.materialize(tree, tmp_path / f"{checks}", checks)
        assert caught.value.digest == tree.files[0].digest


def test_wrong_bytes_behind_the_same_stat_are_not_copied(
    store: Store, file: Path, tmp_path: Path, in_place: None
) -> None:
    tree = keep(store, file)
    digest = tree.files[0].digest
    place = Place(store.cas.places.record_path(digest).read_bytes())
    file.write_bytes(DATA[::-1])
    status = file.stat()
    pieces = place.pieces(digest)
    store.cas.places.put(pieces, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    with pytest.raises(MissingBlobError):
        store.cas.link_out(digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not promised(store, tree)


def spoil(data: bytes, how: str) -> bytes:
    line, _, rest = data.partition(b"\n")
    return {
        "empty": b"",
        "cut": data[:-1],
        "flipped": data[:-1] + bytes([data[-1] ^ 1]),
        "no end": line,
        "relative": line.replace(b'"path":"/', b'"path":"') + b"\n" + rest,
        "more": line.replace(b"{", b'{"a":1,', 1) + b"\n" + rest,
        "text": b'{"path":"/x","pieces":"","stamp":"abcd"}\n' + rest,
        "list": b"[]\n",
        "binary": b"\xff\xfe" + data,
    }[how]


@pytest.mark.parametrize("how", ["empty", "cut", "flipped", "no end", "relative", "more", "text", "list", "binary"])
def test_a_damaged_record_is_none(store: Store, file: Path, in_place: None, how: str) -> None:
    tree = keep(store, file)
    digest: Digest = tree.files[0].digest
    path = store.cas.places.record_path(digest)
    data = spoil(path.read_bytes(), how)
    path.chmod(0o644)
    path.write_bytes(data)
    assert store.cas.places.find(digest) is None
    # The pieces are looked at only where they are needed.
    assert promised(store, tree) is (how in ("cut", "flipped"))
    with pytest.raises(ValueError):
        Place(data).pieces(digest)
    store.cas.places.drop(digest)
    assert not promised(store, tree)


def test_a_name_that_no_record_can_hold_is_copied(store: Store, tmp_path: Path, in_place: None) -> None:
    odd = tmp_path / os.fsdecode(b"\xff\n")
    odd.mkdir()
    (odd / "file").write_bytes(DATA)
    tree = keep(store, odd / "file")
    assert store.cas.missing(tree) == []


def test_times_before_1970(store: Store, file: Path, in_place: None) -> None:
    os.utime(file, ns=(-5, -5))
    assert promised(store, keep(store, file))
    assert store.cas.places.find(digest_bytes(DATA)) is not None


def test_no_more_of_a_record_is_read_than_one_has(store: Store, file: Path, in_place: None) -> None:
    keep(store, file)
    ((digest, path),) = store.cas.places.all()
    line, _, rest = path.read_bytes().partition(b"\n")
    path.chmod(0o644)
    # No blocks, and a terabyte to read; each with a header that is right.
    os.truncate(path, 1 << 40)
    with pytest.raises(ValueError, match="pieces are damaged"):
        read_place(path).pieces(digest)
    path.write_bytes(line.replace(b",3000000,", b",%d," % (1 << 62)) + b"\n" + rest)
    os.truncate(path, 1 << 40)
    with pytest.raises(ValueError, match="larger file than any"):
        read_place(path)
    assert store.cas.places.find(digest) is None
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="Expecting"):
        read_place(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="Expecting"):
        read_place(path)
    assert len(audit(store).findings) == 1
