"""Archives of objects: sorted, without times and owners, equal for equal objects."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from llmbuild import linkers
from llmbuild.linkers import archive


def objects(where: Path, mtime: int) -> list[Path]:
    where.mkdir()
    for name in ("lib0.o", "devc.o"):
        (where / name).write_bytes(name.encode() * 1000)
        os.utime(where / name, (mtime, mtime))
    return [where / "lib0.o", where / "devc.o"]


def test_equal_objects_make_equal_archives(tmp_path: Path) -> None:
    first, second = objects(tmp_path / "a", 1000), objects(tmp_path / "b", 2_000_000)
    second[0].chmod(0o755)
    archive.write(first, tmp_path / "1.tar")
    archive.write(second[::-1], tmp_path / "2.tar")
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


def test_members(tmp_path: Path) -> None:
    linkers.link_objects({}, "tar", objects(tmp_path / "a", 5), tmp_path / "lib.tar", scratch=tmp_path, prefix="m_")
    with tarfile.open(tmp_path / "lib.tar") as tar:
        assert tar.getnames() == ["m_devc.o", "m_lib0.o"]
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in tar.getmembers()} == {(0, 0, 0, 0o644, "")}
        file = tar.extractfile("m_lib0.o")
        assert file is not None and file.read() == b"lib0.o" * 1000


def test_identity_needs_no_tool() -> None:
    assert linkers.identity({}, "tar") == "llmbuild-tar"
