"""A reader finds a whole model directory of one age or none, wherever an installation fails or dies."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from llmbuild.engine import fs
from llmbuild.engine.files import TEMPORARY
from llmbuild.engine.install import Installation, InstallReport, inspect, install
from llmbuild.engine.store import Store
from llmbuild.engine.task import Install
from llmbuild.errors import LlmbuildError, MultiError, StoreError
from tests.engine.test_install import make_tree
from tests.helpers.faulty_fs import FaultyFs, FullDisk, Killed, OtherDisk

CONFIG = "mlc-chat-config.json"
INDEXES = {"ndarray-cache.json", "tensor-cache.json"}
MODEL = "dist/m-MLC"
OLD = {
    CONFIG: "old config",
    "ndarray-cache.json": "old index",
    "tensor-cache.json": "old index",
    "params_shard_0.bin": "old weights",
    "params_shard_1.bin": "more old weights",
    "tokenizer.json": "the same",
}
NEW = {name: text.replace("old", "new") for name, text in OLD.items() if name != "params_shard_1.bin"}
MINE = {"mine.txt": b"the user's", "sub/mine": b"as well"}
SECOND = {f"dist/second-MLC/{CONFIG}": b"second", "dist/second-MLC/params_shard_0.bin": b"weights"}


def items(store: Store, files: dict[str, str]) -> list[Installation]:
    """A model directory that two tasks fill, and a library."""
    weights = {name: text for name, text in files.items() if name != CONFIG}
    return [
        Installation("quantize", make_tree(store, weights), Install("", MODEL)),
        Installation("config", make_tree(store, {CONFIG: files[CONFIG]}), Install("", MODEL)),
        Installation("link", make_tree(store, {"lib.so": files[CONFIG]}), Install("lib.so", "dist/libs/m.so")),
    ]


def put(store: Store, project: Path, files: dict[str, str]) -> InstallReport:
    return install(store, project, items(store, files), known=["quantize", "config", "link"])


def put_second(store: Store, project: Path) -> InstallReport:
    files = {path.rpartition("/")[2]: data for path, data in SECOND.items()}
    made = [Installation("config", make_tree(store, dict(files)), Install("", "dist/second-MLC"))]
    return install(store, project, made, known=["config"], manifest="second.toml", alone=lambda: False)


def start(store: Store, project: Path) -> None:
    (project / "second.toml").write_text("")
    put(store, project, OLD)
    put_second(store, project)
    (project / MODEL / "sub").mkdir()
    for name, data in MINE.items():
        (project / MODEL / name).write_bytes(data)


def everything(project: Path) -> dict[str, bytes]:
    """All files of a project with their content, those behind a link included, without llmbuild's own record."""
    found = {}
    for directory, _, names in os.walk(project, followlinks=True):
        within = Path(directory).relative_to(project)
        if within.parts[:1] != (".llmbuild",):
            found.update({(within / name).as_posix(): (Path(directory) / name).read_bytes() for name in names})
    return found


def link_output(project: Path) -> None:
    """Let the output be a link to a directory elsewhere."""
    elsewhere = project.with_name(f"{project.name}-elsewhere")
    elsewhere.mkdir()
    (project / "dist").symlink_to(elsewhere)


def _others(results: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in results.items() if name != CONFIG and name not in INDEXES}


def require_one_age(project: Path, ages: tuple[dict[str, str], ...] = (OLD, NEW), *, none: bool = True) -> None:
    """One of the ages as a whole, or (with `none`) nothing that a reader would load; and what is of others."""
    found = {path: data for path, data in everything(project).items() if TEMPORARY not in path}
    # While two directories change places, the user's files lie in both, or are on their way from one to the other.
    anywhere = [data for path, data in everything(project).items() if path.rpartition("/")[2] in ("mine.txt", "mine")]
    assert set(anywhere) == set(MINE.values())
    assert {path: data for path, data in found.items() if path.startswith("dist/second-MLC")} == SECOND
    model = {path[len(MODEL) + 1 :]: data.decode() for path, data in found.items() if path.startswith(f"{MODEL}/")}
    results = {name: text for name, text in model.items() if name not in MINE}
    if CONFIG in results or not none:
        assert results in ages
    elif INDEXES & results.keys():
        # Whoever opens an index finds the weights that it speaks of.
        assert _others(results) in [_others(one) for one in ages]
    else:
        assert set(results.items()) <= {item for one in (OLD, NEW) for item in one.items()}


def require_new(store: Store, project: Path) -> None:
    """The next build puts right whatever there is, and leaves nothing of its own lying about."""
    put(store, project, NEW)
    put_second(store, project)
    assert everything(project) == {
        **{f"{MODEL}/{name}": text.encode() for name, text in NEW.items()},
        **{f"{MODEL}/{name}": data for name, data in MINE.items()},
        **SECOND,
        "dist/libs/m.so": b"new config",
        "second.toml": b"",
    }
    again = put(store, project, NEW)
    assert (again.written, again.restored, again.removed, again.kept) == ([], [], [], [])


def fail(store: Store, project: Path, faulty: FaultyFs, made: list[Installation] | None = None) -> BaseException | None:
    made = made or items(store, NEW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fs, "current", faulty)
        try:
            install(store, project, made, known=["quantize", "config", "link"])
        except (LlmbuildError, Killed) as error:
            return error
    return None


def projects(tmp_path: Path) -> Iterator[Path]:
    for number in itertools.count():
        root = tmp_path / str(number)
        root.mkdir()
        yield root


DISKS: dict[str, Callable[..., FaultyFs]] = {
    "exchanging": FaultyFs,
    "linking": partial(OtherDisk, links=True),
    "copying": OtherDisk,
}


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize(("way", "number"), [("kill", 0), ("error", errno.ENOSPC)], ids=["kill", "ENOSPC"])
def test_a_fault_at_any_operation(store: Store, tmp_path: Path, disk: str, way: str, number: int) -> None:
    for at, project in enumerate(projects(tmp_path)):
        start(store, project)
        faulty = DISKS[disk](at, way, number)
        error = fail(store, project, faulty)
        if not faulty.fired:
            assert at > 20
            require_one_age(project, (NEW,), none=False)
            break
        assert not isinstance(error, LlmbuildError) or isinstance(error, StoreError), error
        require_one_age(project)
        require_new(store, project)


class Measuring(OtherDisk):
    """Notes how many bytes were written before and after each write."""

    def __init__(self) -> None:
        super().__init__()
        self.borders = [0]

    def write(self, fd: int, data: bytes | memoryview) -> int:
        written = super().write(fd, data)
        self.borders.append(self.borders[-1] + written)
        return written


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.full)], ids=["borders", "every"])
def test_a_disk_that_is_full_after_any_byte(store: Store, tmp_path: Path, every: bool) -> None:
    """Nothing changes at all, or everything did and the record of it comes with the next build."""
    made, root = items(store, NEW), projects(tmp_path)
    project = next(root)
    start(store, project)
    whole = Measuring()
    assert fail(store, project, whole, made) is None
    assert len(whole.borders) > 6
    middles = [(one + other) // 2 for one, other in itertools.pairwise(whole.borders)]
    near = {border + by for border in whole.borders for by in (-1, 0, 1)} | set(middles)
    rooms = range(whole.borders[-1]) if every else sorted(room for room in near if 0 <= room < whole.borders[-1])
    fresh = False
    for number, room in enumerate(rooms):
        if not fresh:
            project = next(root)
            start(store, project)
        disk = FullDisk(room)
        error = fail(store, project, disk, made)
        assert disk.fired
        assert isinstance(error, StoreError)
        assert "LLMBUILD_CACHE" not in str(error)
        assert "choose another output directory" in str(error) or "move the project" in str(error)
        require_one_age(project, none=False)
        assert not [path for path in everything(project) if TEMPORARY in path]
        fresh = (project / MODEL / CONFIG).read_text() == OLD[CONFIG] and number % 20 > 0
        if not fresh:
            require_new(store, project)


def test_a_full_disk_behind_a_link_keeps_nothing_that_was_prepared(store: Store, tmp_path: Path) -> None:
    made, root = items(store, NEW), projects(tmp_path)
    first, project = next(root), next(root)
    for one in (first, project):
        link_output(one)
    whole = Measuring()
    assert fail(store, first, whole, made) is None
    failed = 0
    for border in whole.borders[1:]:
        error = fail(store, project, FullDisk(border - 1), made)
        if everything(project):
            # Only the record was still to be written.
            break
        assert isinstance(error, StoreError)
        failed += 1
    assert failed > len(NEW)
    assert everything(project) == everything(first)


def test_a_directory_changes_in_one_step_and_keeps_its_mode(store: Store, project: Path) -> None:
    start(store, project)
    (project / MODEL).chmod(0o750)
    seen = []

    class Watching(FaultyFs):
        def exchange(self, one: Path, other: Path) -> None:
            super().exchange(one, other)
            seen.append(sorted(path.name for path in (project / MODEL).iterdir()))

    assert fail(store, project, Watching()) is None
    assert seen == [sorted([*NEW, "mine.txt", "sub"])]
    assert stat.S_IMODE((project / MODEL).stat().st_mode) == 0o750
    require_new(store, project)


def test_a_file_that_is_written_while_directories_change_places_is_kept(store: Store, project: Path) -> None:
    start(store, project)

    class Racing(FaultyFs):
        def exchange(self, one: Path, other: Path) -> None:
            (project / MODEL / "late").write_text("late")
            super().exchange(one, other)

    assert fail(store, project, Racing()) is None
    assert (project / MODEL / "late").read_text() == "late"
    (project / MODEL / "late").unlink()
    require_new(store, project)


def test_what_stands_in_the_way_has_a_fix(store: Store, project: Path) -> None:
    (project / "dist").mkdir()
    (project / MODEL).write_text("the user's")
    # Files deeper within have the same one in their way.
    deep = Installation("deep", make_tree(store, {"a/b/one": "1", "a/c/two": "2"}), Install("", MODEL))
    with pytest.raises(StoreError, match="did not write is in the way") as caught:
        install(store, project, [deep, *items(store, OLD)])
    assert not isinstance(caught.value, MultiError)
    assert caught.value.fix == "move it away or delete it, then build again"
    assert caught.value.where == str(project / MODEL)
    (project / MODEL).unlink()
    (project / "dist").rmdir()
    (project / "dist").symlink_to("nowhere")
    with pytest.raises(StoreError, match="leads nowhere") as caught:
        put(store, project, OLD)
    assert caught.value.fix == "make the directory that it points to, or remove the link"
    (project / "dist").unlink()
    (project / "dist").symlink_to("dist")
    with pytest.raises(StoreError, match="look at an output file") as caught:
        put(store, project, OLD)
    assert caught.value.fix == "remove the links"
    (project / "dist").unlink()
    put(store, project, OLD)


def test_errors_of_the_project_s_disk_advise_about_it(store: Store, tmp_path: Path) -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG):
        found = []
        for at in range(0, 20, 3):
            project = tmp_path / f"{number}-{at}"
            project.mkdir()
            # Some mean only that another way is tried.
            if (error := fail(store, project, FaultyFs(at, "error", number))) is not None:
                assert isinstance(error, StoreError)
                found.append(str(error))
        assert found
        assert not [text for text in found if "LLMBUILD_CACHE" in text]


def test_a_project_that_cannot_be_looked_at_is_one_message(store: Store, project: Path) -> None:
    (project / "dist").symlink_to("dist")
    with pytest.raises(StoreError, match="look at an output file"):
        inspect(project, items(store, OLD))
    # The project's lock lies in the project.
    (project / ".llmbuild/lock").mkdir(parents=True)
    with pytest.raises(StoreError, match="take a lock") as caught:
        put(store, project, OLD)
    assert "LLMBUILD_CACHE" not in str(caught.value)
