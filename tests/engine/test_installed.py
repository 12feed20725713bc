"""The record of what llmbuild put into a project: what it may say, and what it cannot bring about."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbuild.canonical import digest_bytes
from llmbuild.engine import installed
from llmbuild.engine.install import RECORD, Installation, InstallReport, install
from llmbuild.engine.installed import InstalledFile, Moving, Record, load
from llmbuild.engine.names import unfit
from llmbuild.engine.store import Store
from llmbuild.engine.task import Install
from llmbuild.engine.verified import stamp_of
from llmbuild.errors import UsageError
from tests.engine.test_install import make_tree, put, text
from tests.helpers.engine_build import snapshot

CONTENT = b"precious"
DIGEST = digest_bytes(CONTENT)


def write_record(project: Path, value: object) -> None:
    (project / RECORD).parent.mkdir(exist_ok=True)
    (project / RECORD).write_text(json.dumps(value))


def old(*paths: str, stamp: Any = None) -> dict[str, Any]:
    """A record as a llmbuild that knew only one manifest wrote it."""
    return {path: [DIGEST, "gone[x]", stamp, None] for path in paths}


def new(*paths: str, outputs: tuple[str, ...] = ("dist",), **other: Any) -> dict[str, Any]:
    files = {path: [DIGEST, "gone[x]", None, None, "buildfile.toml"] for path in paths}
    return {"format": 2, "outputs": list(outputs), "files": files, "moving": {}, **other}


OUTSIDE = ("../precious.txt", "dist/../../precious.txt", "dist/m-MLC/../../../precious.txt", "./../precious.txt")


@pytest.mark.parametrize("path", [*OUTSIDE, "ABSOLUTE"])
@pytest.mark.parametrize("form", [old, new])
def test_a_record_removes_nothing_outside_the_project(store: Store, tmp_path: Path, form: Any, path: str) -> None:
    project = tmp_path / "clone"
    project.mkdir()
    victim, beside = tmp_path / "precious.txt", tmp_path / ".llmbuild-tmp-mine"
    victim.write_bytes(CONTENT)
    beside.write_text("mine")
    write_record(project, form(str(victim) if path == "ABSOLUTE" else path))
    assert text(put(store, project, {"a": "1"})) == "w:a"
    assert (victim.read_bytes(), beside.read_text()) == (CONTENT, "mine")


@pytest.mark.parametrize("form", [old, new])
@pytest.mark.parametrize("path", [".git/config", ".llmbuild/state", "notes.txt", ".hg/dirstate", "dist/.git/config"])
def test_a_record_removes_only_results(store: Store, project: Path, form: Any, path: str) -> None:
    (project / path).parent.mkdir(parents=True, exist_ok=True)
    (project / path).write_bytes(CONTENT)
    write_record(project, form(path))
    put(store, project, {"a": "1"})
    assert (project / path).read_bytes() == CONTENT


def test_a_record_removes_nothing_through_a_link(store: Store, tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "clone", tmp_path / "elsewhere"
    (project / "dist").mkdir(parents=True)
    elsewhere.mkdir()
    for name in ("file", ".llmbuild-tmp-mine"):
        (elsewhere / name).write_bytes(CONTENT)
    (project / "dist/out").symlink_to(elsewhere)
    stamp = list(stamp_of((elsewhere / "file").lstat()))
    write_record(project, {**old("dist/out/file"), **{"dist/m-MLC/b": [DIGEST, "gone[x]", [1, *stamp[1:]], None]}})
    assert text(put(store, project, {"a": "1"})) == "w:a k:file"
    assert sorted(path.name for path in elsewhere.iterdir()) == [".llmbuild-tmp-mine", "file"]


def test_an_exchange_that_a_record_makes_up_moves_nothing(store: Store, project: Path) -> None:
    (project / "src").mkdir()
    (project / "src/mine").write_bytes(CONTENT)
    moving = {
        "src": ["dist/m", 1],
        "dist/../src": ["dist/m", 1],
        "src/.llmbuild-tmp-x": ["dist/m", 1],
        "dist/.llmbuild-tmp-x": ["src", 1],
        "dist/.llmbuild-tmp-y": "dist/m",
    }
    write_record(project, new(moving=moving))
    assert load(project, ("dist",)).moving == {}
    put(store, project, {"a": "1"})
    assert snapshot(project) == {"src/mine": CONTENT, "dist/m/a": b"1"}


def test_results_of_a_user_s_linked_output_directory_are_replaced_and_removed(store: Store, tmp_path: Path) -> None:
    project, disk = tmp_path / "project", tmp_path / "disk"
    project.mkdir()
    disk.mkdir()
    (project / "dist").symlink_to(disk)
    assert text(put(store, project, {"a": "1", "b": "2"})) == "w:a,b"
    assert text(put(store, project, {"a": "3"})) == "w:a d:b"
    assert {path.name: path.read_bytes() for path in (disk / "m").iterdir()} == {"a": b"3"}


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"7",
        b'"x"',
        b"null",
        b'{"format": 2}',
        b'{"format": 2, "files": 3, "outputs": {}, "moving": []}',
        b'{"format": 2, "files": {"dist/m/a": [1, 2, 3, 4, 5]}, "outputs": [1, "..", null], "moving": {"a": 1}}',
        b'{"dist/m/a": null, "dist/m/b": [[], {}, 1, 2]}',
    ],
)
def test_a_record_of_another_form_counts_as_none(store: Store, project: Path, content: bytes) -> None:
    put(store, project, {"a": "1", "b": "2"})
    (project / RECORD).write_bytes(content)
    report = put(store, project, {"a": "1", "b": "2"})
    assert (text(report), report.unchanged) == ("", 2)


def test_wrong_entries_are_left_out_and_right_ones_stay(project: Path) -> None:
    right: dict[str, Any] = {
        "dist/m-MLC/a": [DIGEST, "t", None, None],
        "dist/m-MLC/b": [DIGEST, "t", [1, 2, 3, 4], DIGEST],
    }
    wrong = {
        "dist/m-MLC/digest": ["../x", "t", None, None],
        "dist/m-MLC/upper": [DIGEST.upper(), "t", None, None],
        "dist/m-MLC/previous": [DIGEST, "t", None, "../x"],
        "dist/m-MLC/label": [DIGEST, 7, None, None],
        "dist/m-MLC/stamp": [DIGEST, "t", ["1", 2, 3, 4], None],
        "dist/m-MLC/truth": [DIGEST, "t", [True, 2, 3, 4], None],
        "dist/m-MLC/short": [DIGEST, "t", [1, 2, 3], None],
        "dist/m-MLC/few": [DIGEST, "t", None],
        "dist/m-MLC/long" + "x" * 300: [DIGEST, "t", None, None],
        "dist/m-MLC/line\n": [DIGEST, "t", None, None],
        "dist/m-MLC/nul\0": [DIGEST, "t", None, None],
        "dist/m-MLC//two": [DIGEST, "t", None, None],
        "dist/m-MLC/./dot": [DIGEST, "t", None, None],
    }
    write_record(project, right | wrong)
    record = load(project)
    assert record.files == {
        "dist/m-MLC/a": InstalledFile(DIGEST, "t", None),
        "dist/m-MLC/b": InstalledFile(DIGEST, "t", None, (1, 2, 3, 4), DIGEST),
    }
    write_record(
        project, {"format": 2, "outputs": ["dist"], "files": {p: [*row, "m.toml"] for p, row in right.items()}}
    )
    assert set(load(project).files) == set(right)
    write_record(project, {"format": 2, "outputs": ["dist"], "files": {p: [*row, "../m"] for p, row in right.items()}})
    assert load(project).files == {}


def test_what_is_saved_is_loaded(project: Path) -> None:
    record = Record(
        {
            "dist/m/a": InstalledFile(DIGEST, "t", "b.toml", (1, 2, 3, 4), DIGEST),
            "out/b": InstalledFile(DIGEST, "u", None),
        },
        frozenset({"dist", "out", "unused"}),
        {"dist/.llmbuild-tmp-1": Moving("dist/m", 9)},
    )
    installed.save(project, record)
    found = load(project)
    assert (found.files, found.outputs, found.moving) == (record.files, frozenset({"dist", "out"}), record.moving)


def test_results_in_a_former_output_directory_are_removed(store: Store, project: Path) -> None:
    write_record(project, new(outputs=("before",)))
    put(store, project, {"a": "1"}, dest="before/m-MLC")
    write_record(project, old_of(project / "before/m-MLC/a", "before/m-MLC/a"))
    assert text(put(store, project, {"a": "1"}, dest="dist/m-MLC")) == "w:a d:a"
    assert snapshot(project) == {"dist/m-MLC/a": b"1"}


def test_a_record_of_before_is_taken_over_by_the_manifest_that_has_the_results(store: Store, project: Path) -> None:
    """It does not say whose a file is: each manifest takes its own, and leaves what may be the other's."""
    (project / "second.toml").write_text("")

    def build(manifest: str, model: str, files: dict[str, str], *, alone: bool = False) -> InstallReport:
        made = [Installation(f"t[{model}]", make_tree(store, files), Install("", f"dist/{model}-MLC"))]
        return install(store, project, made, known=[f"t[{model}]"], manifest=manifest, alone=lambda: alone)

    def forget() -> None:
        rows = json.loads((project / RECORD).read_bytes())["files"]
        write_record(project, {path: row[:4] for path, row in rows.items()})

    build("buildfile.toml", "a", {"x": "1", "y": "2"})
    build("second.toml", "b", {"x": "1", "y": "2"})
    forget()
    assert text(build("buildfile.toml", "a", {"x": "3"})) == "w:x d:y"
    assert text(build("second.toml", "b", {"x": "1", "y": "2"})) == ""
    assert {path: one.manifest for path, one in load(project).files.items()} == {
        "dist/a-MLC/x": "buildfile.toml",
        "dist/b-MLC/x": "second.toml",
        "dist/b-MLC/y": "second.toml",
    }
    # A directory with one manifest only removes what nothing makes any more, as before.
    (project / "second.toml").unlink()
    forget()
    assert text(build("buildfile.toml", "a", {"x": "3"}, alone=True)) == "d:x,y"


def test_what_another_manifest_has_is_not_taken(store: Store, project: Path) -> None:
    (project / "second.toml").write_text("")
    made = [Installation("t", make_tree(store, {"a": "1"}), Install("", "dist/m"))]
    install(store, project, made, known=["t"], manifest="second.toml")
    before = snapshot(project)
    for dest in ("dist/m", "dist"):
        mine = [Installation("t", make_tree(store, {"a": "2"}), Install("", dest))]
        with pytest.raises(UsageError, match="two manifests claim the same output") as caught:
            install(store, project, mine, known=["t"])
        assert caught.value.why == f"second.toml and buildfile.toml both write {dest}"
        assert caught.value.where == dest
        assert snapshot(project) == before
    # However many they are, it is one error.
    many = [Installation("t", make_tree(store, {"a": "1"}), Install("", f"dist/n{number}")) for number in range(6)]
    install(store, project, [*made, *many], known=["t"], manifest="second.toml")
    with pytest.raises(UsageError) as caught:
        install(store, project, many, known=["t"])
    assert caught.value.why == "second.toml and buildfile.toml both write dist/n0, dist/n1, dist/n2 and 3 more"
    # One that is gone claims nothing.
    (project / "second.toml").unlink()
    made = [Installation("t", make_tree(store, {"b": "2"}), Install("", "dist/m"))]
    assert text(install(store, project, made, known=["t"])) == "w:b d:a"


def old_of(file: Path, path: str) -> dict[str, Any]:
    return {path: [digest_bytes(file.read_bytes()), "t", list(stamp_of(file.lstat())), None]}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([DIGEST, "dist/m/a", "../x", "dist", "\0", "t"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["dist/m/a", "../x", "format"]), inner),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values, values, values, st.sampled_from([2, 2, 2, 1, "2"]))
def test_no_record_names_anything_else(project: Path, outputs: Any, files: Any, moving: Any, version: Any) -> None:
    for value in (files, {"format": version, "outputs": outputs, "files": files, "moving": moving}):
        write_record(project, value)
        record = load(project, ("dist",))
        paths = [*record.files, *(one.directory for one in record.moving.values())]
        assert all(unfit(path) is None for path in (*paths, *record.outputs))
        assert all(any(path.startswith(f"{out}/") or path == out for out in record.outputs) for path in paths)


def test_an_exchange_that_a_record_invents_moves_nothing_through_a_link(store: Store, project: Path) -> None:
    """A repository can bring the record, the directory that it calls the old one, and a link for the new one."""
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "profile").write_text("the user's")
    os.utime(elsewhere / "profile", (1, 1))
    old = project / "dist/.llmbuild-tmp-x"
    old.mkdir(parents=True)
    (old / "profile").write_text("foreign")
    (old / "added").write_text("foreign")
    (project / "dist/m").symlink_to(elsewhere)
    for inode in (1, 2, elsewhere.stat().st_ino):
        write_record(project, new(moving={"dist/.llmbuild-tmp-x": ["dist/m", inode]}))
        put(store, project, {"a": "1"}, f"dist/other-{inode}")
        assert {path.name: path.read_text() for path in elsewhere.iterdir()} == {"profile": "the user's"}
