"""Linking outputs into the project."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from llmbuild.engine import fs
from llmbuild.engine.cas import MissingBlobError
from llmbuild.engine.install import RECORD, Installation, InstallReport, install
from llmbuild.engine.store import Store
from llmbuild.engine.task import Install
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.errors import MultiError, StoreError, UsageError
from tests.helpers.engine_build import snapshot


def make_tree(store: Store, files: dict[str, str | bytes], executable: tuple[str, ...] = ()) -> Tree:
    entries = []
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        entries.append(FileEntry(name, store.cas.put_bytes(data), len(data), name in executable))
    return Tree.of(entries)


def put(
    store: Store, project: Path, files: dict[str, str], dest: str = "dist/m", label: str = "t", source: str = ""
) -> InstallReport:
    return install(store, project, [Installation(label, make_tree(store, files), Install(source, dest))], known=[label])


def text(report: InstallReport) -> str:
    parts = {"w": report.written, "r": report.restored, "d": report.removed, "k": report.kept}
    return " ".join(f"{name}:{','.join(Path(p).name for p in paths)}" for name, paths in parts.items() if paths)


class ReadOnlyFs(fs.FileSystem):
    """Refuses every change."""

    def create(self, path: Path) -> int:
        raise AssertionError(f"{path} would be written")

    def unlink(self, path: Path) -> None:
        raise AssertionError(f"{path} would be removed")


def test_the_second_install_touches_nothing(store: Store, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"a": "1", "sub/b": "2", "same": "1"}
    assert text(put(store, project, files)) == "w:a,same,b"
    assert snapshot(project) == {"dist/m/a": b"1", "dist/m/sub/b": b"2", "dist/m/same": b"1"}
    with monkeypatch.context() as patch:
        patch.setattr(fs, "current", ReadOnlyFs())
        patch.setattr("llmbuild.engine.deciding.digest_file", lambda path: pytest.fail(f"{path} was hashed"))
        report = put(store, project, files)
    assert (text(report), report.unchanged) == ("", 3)


def test_edited_and_deleted_files_are_restored(store: Store, project: Path) -> None:
    files = {"a": "1", "b": "2", "c": "3", "d": "4"}
    put(store, project, files)
    (project / "dist/m/a").unlink()
    (project / "dist/m/b").unlink()
    (project / "dist/m/b").write_text("edited")
    (project / "dist/m/c").unlink()
    (project / "dist/m/c").symlink_to("a")
    os.utime(project / "dist/m/d")
    report = put(store, project, files)
    assert text(report) == "r:a,b,c"
    assert {name.rpartition("/")[2]: data.decode() for name, data in snapshot(project).items()} == files
    assert text(put(store, project, files)) == ""


def test_an_edit_through_a_hard_link_spoils_the_blob_and_is_found(store: Store, project: Path) -> None:
    data = {"a": "x" * 100_000}
    put(store, project, data)
    path = project / "dist/m/a"
    path.chmod(0o644)
    path.write_text("y" * 100_000)
    tree = Tree.of([FileEntry("a", make_tree(Store(store.root), data).files[0].digest, 100_000)])
    report = install(store, project, [Installation("t", tree, Install("", "dist/m"))])
    assert text(report) == "r:a"
    assert path.read_text() == data["a"]
    assert store.cas.get_bytes(tree.files[0].digest) == data["a"].encode()


def test_changed_content_replaces_and_missing_files_go(store: Store, project: Path) -> None:
    put(store, project, {"shard_0": "1", "shard_1": "2", "deep/er/shard_2": "3"})
    (project / "dist/m/mine.txt").write_text("the user's")
    report = put(store, project, {"shard_0": "9"})
    assert text(report) == "w:shard_0 d:shard_2,shard_1"
    assert snapshot(project) == {"dist/m/shard_0": b"9", "dist/m/mine.txt": b"the user's"}
    assert not (project / "dist/m/deep").exists()


def test_an_edited_file_that_no_longer_belongs_is_kept(store: Store, project: Path) -> None:
    put(store, project, {"a": "1", "b": "2"})
    (project / "dist/m/b").unlink()
    (project / "dist/m/b").write_text("precious")
    report = put(store, project, {"a": "1"})
    assert text(report) == "k:b"
    assert (project / "dist/m/b").read_text() == "precious"
    assert text(put(store, project, {"a": "1"})) == ""


def test_a_file_of_the_user_is_never_replaced(store: Store, project: Path) -> None:
    (project / "dist/m").mkdir(parents=True)
    (project / "dist/m/a").write_text("the user's")
    (project / "dist/m/b").mkdir()
    with pytest.raises(MultiError, match="did not write"):
        put(store, project, {"a": "1", "b": "2", "c": "3"})
    assert snapshot(project) == {"dist/m/a": b"the user's"}
    # A file with the very content is taken as installed.
    shutil.rmtree(project / "dist")
    (project / "dist/m").mkdir(parents=True)
    (project / "dist/m/a").write_text("1")
    report = put(store, project, {"a": "1"})
    assert (text(report), report.unchanged) == ("", 1)
    assert text(put(store, project, {"a": "2"})) == "w:a"


def test_other_tasks_files_stay_unless_the_task_is_gone(store: Store, project: Path) -> None:
    a = Installation("a", make_tree(store, {"x": "1"}), Install("", "dist/a"))
    b = Installation("b", make_tree(store, {"x": "2"}), Install("", "dist/b"))
    install(store, project, [a, b], known=["a", "b"])
    assert text(install(store, project, [a])) == ""
    assert text(install(store, project, [a], known=["a", "b"])) == ""
    assert text(install(store, project, [a], known=["a"])) == "d:x"
    assert snapshot(project) == {"dist/a/x": b"1"}


def test_a_path_that_changes_its_task_is_not_removed(store: Store, project: Path) -> None:
    put(store, project, {"x": "1"}, label="old")
    put(store, project, {"x": "1"}, label="new")
    put(store, project, {"x": "1"}, label="new")
    assert snapshot(project) == {"dist/m/x": b"1"}
    assert text(put(store, project, {"y": "1"}, label="new")) == "w:y d:x"


def test_one_file_a_directory_or_all_can_be_installed(store: Store, project: Path) -> None:
    tree = make_tree(store, {"lib.so": "so", "sub/a": "1", "sub/b/c": "2"}, executable=("lib.so",))
    install(store, project, [Installation("t", tree, Install("lib.so", "dist/libs/m-cpu.so"))])
    install(store, project, [Installation("u", tree, Install("sub", "dist/sub"))])
    assert snapshot(project) == {"dist/libs/m-cpu.so": b"so", "dist/sub/a": b"1", "dist/sub/b/c": b"2"}
    assert (project / "dist/libs/m-cpu.so").stat().st_mode & 0o777 == 0o555
    assert (project / "dist/sub/a").stat().st_mode & 0o777 == 0o444
    assert text(install(store, project, [Installation("t", tree, Install("lib.so", "dist/libs/m-cpu.so"))])) == ""
    (project / "dist/libs/m-cpu.so").chmod(0o444)
    assert text(install(store, project, [Installation("t", tree, Install("lib.so", "dist/libs/m-cpu.so"))])) != ""
    with pytest.raises(StoreError, match=r"did not produce lib\.dll"):
        install(store, project, [Installation("t", tree, Install("lib.dll", "dist/x"))])


def test_two_claims_of_one_path(store: Store, project: Path) -> None:
    one, two = make_tree(store, {"x": "1"}), make_tree(store, {"x": "2"})
    same = [Installation("a", one, Install("", "dist")), Installation("b", one, Install("", "dist"))]
    assert text(install(store, project, same)) == "w:x"
    with pytest.raises(UsageError, match="two tasks claim"):
        install(store, project, [same[0], Installation("b", two, Install("", "dist"))])
    assert snapshot(project) == {"dist/x": b"1"}
    with pytest.raises(UsageError, match="in the way of an output directory"):
        install(store, project, [same[0], Installation("b", one, Install("", "dist/x"))])
    for dest in ("../out", "/tmp/out", "a/../../b"):
        with pytest.raises(UsageError, match="leaves the project"):
            install(store, project, [Installation("a", one, Install("", dest))])


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"dist/m/a": 3}', b'{"dist/m/a": ["x", "y", [1], null]}'])
def test_a_lost_record_is_made_again_from_equal_files(store: Store, project: Path, content: bytes | None) -> None:
    put(store, project, {"a": "1", "b": "2"})
    if content is None:
        (project / RECORD).unlink()
    else:
        (project / RECORD).write_bytes(content)
    report = put(store, project, {"a": "1", "b": "2"})
    assert (text(report), report.unchanged) == ("", 2)
    assert text(put(store, project, {"a": "3"})) == "w:a d:b"


def test_a_missing_blob_is_reported_as_such(store: Store, project: Path) -> None:
    tree = make_tree(store, {"a": "1"})
    store.cas.remove(tree.files[0].digest)
    with pytest.raises(MissingBlobError):
        install(store, project, [Installation("t", tree, Install("", "dist"))])
