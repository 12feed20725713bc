"""Atomic file operations and their errors."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from llmbuild.engine import files, fs
from llmbuild.errors import ExitCode, StoreError
from tests.helpers.crafted import picture
from tests.helpers.faulty_fs import FaultyFs, Killed


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EBADF])
def test_every_failed_operation_keeps_the_old_content_and_says_why(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    failed = 0
    for at in range(50):
        faulty = FaultyFs(at, "error", number)
        monkeypatch.setattr(fs, "current", faulty)
        try:
            files.write_atomic(path, b"new" * 100, durable=True, mode=0o444)
        except StoreError as error:
            failed += 1
            assert error.exit_code == ExitCode.STORE
            assert error.why
            assert path.read_bytes() in (b"old", b"new" * 100)
            assert [one.name for one in tmp_path.iterdir()] == ["file"]
        if not faulty.fired:
            break
    assert failed >= 5
    assert path.read_bytes() == b"new" * 100


def test_a_kill_leaves_the_old_content_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(50):
        path = tmp_path / str(at) / "file"
        path.parent.mkdir()
        path.write_bytes(b"old")
        faulty = FaultyFs(at, "kill")
        monkeypatch.setattr(fs, "current", faulty)
        try:
            files.write_atomic(path, b"new" * 100, durable=True)
        except Killed:
            assert path.read_bytes() in (b"old", b"new" * 100)
        else:
            assert path.read_bytes() == b"new" * 100
            return
    raise AssertionError("the write never completed")


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(12):
        monkeypatch.setattr(fs, "current", FaultyFs(at, "short"))
        if at in (0, 1) or at > 2:
            continue
        files.write_atomic(tmp_path / "file", b"0123456789")
        assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_sharing_falls_back_from_reflink_to_link_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)

    class NoClone(fs.FileSystem):
        def clone(self, source_fd: int, dest_fd: int) -> None:
            raise OSError(errno.EOPNOTSUPP, "no")

    class NoLink(NoClone):
        def hard_link(self, source: Path, dest: Path) -> None:
            raise OSError(errno.EXDEV, "no")

    monkeypatch.setattr(fs, "current", NoClone())
    assert files.share(source, tmp_path / "link") == "link"
    assert (tmp_path / "link").stat().st_ino == source.stat().st_ino
    assert files.share(source, tmp_path / "run", executable=True) == "copy"
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o555
    monkeypatch.setattr(fs, "current", NoLink())
    assert files.share(source, tmp_path / "copy") == "copy"
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o444
    for name in ("link", "run", "copy"):
        assert (tmp_path / name).read_bytes() == b"x" * 1000


def test_a_full_disk_is_not_taken_for_a_file_system_without_reflinks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(b"x")

    class Full(fs.FileSystem):
        def clone(self, source_fd: int, dest_fd: int) -> None:
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(fs, "current", Full())
    with pytest.raises(OSError, match="full"):
        files.share(tmp_path / "source", tmp_path / "dest")


def test_remove_tree_takes_read_only_parts_and_leaves_link_targets(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("x")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "a" / "b").chmod(0o500)
    files.remove_tree(root, tmp_path)
    files.remove_tree(root, tmp_path)
    assert not root.exists()
    assert (tmp_path / "outside" / "kept").exists()


@pytest.mark.parametrize(
    "name", ["../outside", "..//../outside", "a/../../outside", "", ".", "link/kept", "a/link/kept"]
)
def test_remove_tree_refuses_what_leaves_its_root(tmp_path: Path, name: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a").mkdir(parents=True)
    outside.mkdir()
    (outside / "kept").write_text("x")
    for link in (root / "link", root / "a" / "link"):
        link.symlink_to(outside)
    before = picture(tmp_path)
    for path in (f"{root}/{name}", f"{outside}"):
        with pytest.raises(PermissionError, match="is not removed"):
            files.remove_tree(path, root)
    assert picture(tmp_path) == before
    # A root that is itself behind a link is the user's choice.
    (tmp_path / "elsewhere").symlink_to(root)
    files.remove_tree(tmp_path / "elsewhere" / "a", tmp_path / "elsewhere")
    assert not (root / "a").exists()
    assert (outside / "kept").exists()
