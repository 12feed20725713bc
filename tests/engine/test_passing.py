"""Files of inputs that are part of the output as they are: nothing is copied, and nothing is trusted that was not verified."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmbuild.canonical import digest_bytes
from llmbuild.engine.cas import MissingBlobError
from llmbuild.engine.passing import Passer
from llmbuild.engine.store import Store
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.errors import InputError

DATA = b"weights" * 1000


@pytest.fixture
def tree(store: Store, tmp_path: Path) -> Tree:
    """An output of another task: a file, an executable, and a file in a directory."""
    place = tmp_path / "upstream"
    (place / "deep").mkdir(parents=True)
    (place / "weights.bin").write_bytes(DATA)
    (place / "run").write_bytes(b"program")
    (place / "run").chmod(0o755)
    (place / "deep/x").write_bytes(b"x")
    return store.cas.put_tree(place)


def laid_out(store: Store, tree: Tree, work: Path) -> Passer:
    store.cas.materialize(tree, work / "in")
    (work / "out").mkdir()
    return Passer(work / "out", {"in": work / "in"}, {"in": tree})


def put(store: Store, passer: Passer, work: Path) -> Tree:
    return store.cas.put_tree(work / "out", move=True, passed=passer.passed)


def test_a_file_is_passed_on_under_a_name_without_being_copied(store: Store, tree: Tree, tmp_path: Path) -> None:
    passer = laid_out(store, tree, tmp_path)
    blob = store.cas.path(digest_bytes(DATA))
    before = blob.stat()
    (tmp_path / "out/own").write_bytes(b"own")
    passer("in", "weights.bin", "model/params.bin")
    passer("in", "weights.bin", "again.bin")
    passer("in", "run", "bin/run")
    # What the task does with the laid out file is of no consequence.
    (tmp_path / "in/weights.bin").unlink()
    (tmp_path / "in/weights.bin").write_bytes(b"other")
    made = put(store, passer, tmp_path)
    assert made == Tree.of(
        [
            FileEntry("again.bin", digest_bytes(DATA), len(DATA)),
            FileEntry("bin/run", digest_bytes(b"program"), 7, executable=True),
            FileEntry("model/params.bin", digest_bytes(DATA), len(DATA)),
            FileEntry("own", digest_bytes(b"own"), 3),
        ]
    )
    assert store.cas.get_tree(made.digest) == made
    after = blob.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )


def test_a_blob_that_was_damaged_meanwhile_is_missing(store: Store, tree: Tree, tmp_path: Path) -> None:
    passer = laid_out(store, tree, tmp_path)
    passer("in", "weights.bin", "weights.bin")
    blob = store.cas.blob_path(digest_bytes(DATA))
    blob.chmod(0o644)
    blob.write_bytes(DATA[:-1] + b"!")
    with pytest.raises(MissingBlobError):
        put(store, passer, tmp_path)
    assert digest_bytes(DATA) in store.cas.corrupt


def test_a_blob_that_is_gone_is_missing(store: Store, tree: Tree, tmp_path: Path) -> None:
    passer = laid_out(store, tree, tmp_path)
    passer("in", "deep/x", "x")
    store.cas.remove(digest_bytes(b"x"))
    with pytest.raises(MissingBlobError):
        put(store, passer, tmp_path)


@pytest.mark.parametrize("content", [DATA, DATA[:-1] + b"!"], ids=["right", "changed"])
def test_a_file_that_its_owner_has_in_place_is_stored_from_the_copy(
    store: Store, tree: Tree, tmp_path: Path, content: bytes
) -> None:
    """An input whose bytes are no blob is laid out as a copy, which counts by its digest."""
    passer = laid_out(store, tree, tmp_path)
    passer("in", "weights.bin", "weights.bin")
    os.unlink(tmp_path / "in/weights.bin")  # noqa: PTH108 - a link.
    (tmp_path / "in/weights.bin").write_bytes(content)
    store.cas.remove(digest_bytes(DATA))
    if content != DATA:
        with pytest.raises(MissingBlobError):
            put(store, passer, tmp_path)
        return
    assert put(store, passer, tmp_path).files == (FileEntry("weights.bin", digest_bytes(DATA), len(DATA)),)
    assert store.cas.path(digest_bytes(DATA)).read_bytes() == DATA


@pytest.mark.parametrize("name", ["../x", "/x", "", "a//b", "a/./b", "x\ny"])
def test_a_name_that_leaves_the_output_is_refused(store: Store, tree: Tree, tmp_path: Path, name: str) -> None:
    passer = laid_out(store, tree, tmp_path)
    with pytest.raises(InputError, match="no result can have a file of this name"):
        passer("in", "deep/x", name)


def test_a_name_is_given_once(store: Store, tree: Tree, tmp_path: Path) -> None:
    passer = laid_out(store, tree, tmp_path)
    passer("in", "deep/x", "x")
    (tmp_path / "out/written").write_bytes(b"own")
    for name in ("x", "written"):
        with pytest.raises(InputError, match="two files of a result have the same name"):
            passer("in", "run", name)
    (tmp_path / "out/x").write_bytes(b"later")
    with pytest.raises(InputError, match="two files of a result have the same name"):
        put(store, passer, tmp_path)


def test_what_no_input_has_cannot_be_passed_on(store: Store, tree: Tree, tmp_path: Path) -> None:
    passer = laid_out(store, tree, tmp_path)
    for source, path in (("in", "nothing"), ("other", "run"), ("in", "deep")):
        with pytest.raises(KeyError):
            passer(source, path, "x")
