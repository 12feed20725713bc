"""Local checkpoints that are read where they are: what a change does before, during and after a build."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import llmbuild
from llmbuild.checkpoints.pieces import Pieces, digest_pieces
from llmbuild.cli.main import main
from llmbuild.engine import fs, statcache
from llmbuild.engine.cas import MissingBlobError
from llmbuild.engine.execute import execute
from llmbuild.engine.places import Place
from llmbuild.engine.store import Store
from llmbuild.engine.upkeep.archive import export, import_archive
from llmbuild.engine.upkeep.audit import audit
from llmbuild.engine.upkeep.gc import Retention, collect
from llmbuild.engine.verified import stamp_of
from llmbuild.errors import ExitCode, FetchError, LlmbuildError
from llmbuild.executors.inline import InlineExecutor
from llmbuild.models import open as open_
from llmbuild.quantization import convert
from llmbuild.report.plan_text import plan_text
from llmbuild.report.style import Style
from llmbuild.sources import local
from llmbuild.workspace.outcome import BuildError
from llmbuild.workspace.workspace import Workspace
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST
from tests.helpers.gguf_files import make_gguf


class NoReflinks(fs.FileSystem):
    def clone(self, source_fd: int, dest_fd: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")


TASKS = ("quantize", "config")


@pytest.fixture(autouse=True)
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fs, "current", NoReflinks())
    monkeypatch.setattr(local, "KEPT_FROM", 1 << 16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path, "one")


def make(directory: Path, name: str) -> Path:
    root = directory / name
    shutil.copytree(cached_checkpoint("llama-gqa"), root / "checkpoint")
    (root / "buildfile.toml").write_text(TINY_MANIFEST)
    old(weights(root))
    return root


def weights(root: Path) -> Path:
    return root / "checkpoint" / "model.safetensors"


def old(path: Path) -> None:
    """Let a file be so old that its digest is remembered."""
    os.utime(path, (1e9, 1e9))


def open_project(root: Path) -> Workspace:
    return llmbuild.open(root, cache=root.parent / "store")


def build(root: Path, *tasks: str, **options: bool) -> set[str]:
    """The kinds of tasks that ran in a build."""
    with open_project(root) as workspace:
        executor = InlineExecutor(workspace.store)
        outcome = workspace.build(*(tasks or TASKS), executor=executor, **options)
    return {label.partition("[")[0] for label, one in outcome.result.outcomes.items() if one.status.value == "ran"}


def outputs(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "dist" / "tiny-q4f32_1-MLC").iterdir()}


def edit_mapped(path: Path) -> None:
    """Change a byte through a mapping, which may leave every time of the file as it was."""
    status = path.stat()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[-5] ^= 64
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def edit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 64
    path.write_bytes(data)


def during_the_build(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[], None], module: ModuleType = convert, name: str = "convert"
) -> None:
    """Let something happen in a task: in quantize, when it has opened the checkpoint and read no tensor."""
    real = getattr(module, name)

    def changed(*arguments: object, **options: object) -> object:
        change()
        monkeypatch.setattr(module, name, real)
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, changed)


def test_the_store_has_no_copy_and_the_result_is_the_same(root: Path, tmp_path: Path) -> None:
    assert build(root) == {"fetch", "inspect", "quantize", "config"}
    largest = max(path.stat().st_size for path in (tmp_path / "store" / "blobs").rglob("*") if path.is_file())
    assert largest < weights(root).stat().st_size
    assert weights(root).stat().st_nlink == 1
    assert build(root) == set()
    copied = make(tmp_path / "other", "two")
    local.KEPT_FROM = 1 << 40
    build(copied)
    assert outputs(root) == outputs(copied)
    locks = [(one / "llmbuild.lock").read_bytes() for one in (root, copied)]
    assert locks[0] == locks[1]


@pytest.mark.parametrize("change", [edit, edit_mapped])
def test_a_change_during_the_build_is_an_error_and_the_next_build_is_right(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    build(root, "fetch")
    during_the_build(monkeypatch, lambda: change(weights(root)))
    with pytest.raises(BuildError) as caught:
        build(root)
    (error,) = caught.value.outcome.errors
    assert error.exit_code == ExitCode.FETCH
    assert "changed while the build was running" in str(error)
    assert str(weights(root)) in str(error)
    assert "run the build again" in str(error)
    assert build(root) >= {"fetch", "quantize"}
    other = make(tmp_path / "other", "two")
    change(weights(other))
    build(other)
    assert outputs(root) == outputs(other)


def test_a_change_that_no_time_tells(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statcache, "RACY_NS", -(1 << 62))
    with weights(root).open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        # A page that is dirty already can be written to without another time.
        view[-5] ^= 64
        build(root, "fetch")
        before = stamp_of(weights(root).stat())
        view[-5] ^= 32
        if stamp_of(weights(root).stat()) == before:
            with pytest.raises(BuildError, match="changed while the build was running"):
                build(root)
        # What was believed of the file is forgotten, so that it does not fail for ever.
        assert build(root) >= {"fetch", "quantize"}
        other = make(tmp_path / "other", "two")
        shutil.copyfile(weights(root), weights(other))
    build(other)
    assert outputs(root) == outputs(other)


def test_a_change_after_it_makes_the_plan_stale(root: Path) -> None:
    build(root)
    edit(weights(root))
    with open_project(root) as workspace:
        verdicts = {one.task.label: one for one in workspace.plan(*TASKS).verdicts}
        assert "model.safetensors changed" in str(workspace.why("fetch[tiny]"))
    assert verdicts["fetch[tiny]"].state == "run"
    assert build(root) == {"fetch", "inspect", "quantize"}


@pytest.mark.parametrize("lost", ["all of it", "the weights"])
def test_a_checkpoint_that_is_gone(root: Path, lost: str) -> None:
    build(root)
    built = outputs(root)
    aside = root / "aside"
    if lost == "all of it":
        (root / "checkpoint").rename(aside)
    else:
        weights(root).rename(aside)
    with open_project(root) as workspace:
        snapshot = workspace.look(*TASKS)
        plan = snapshot.plan()
        text = plan_text(plan, Style(200))
    gone = (root / "checkpoint" if lost == "all of it" else weights(root)).relative_to(root)
    assert not plan.stale
    assert f"not here: source gone: {gone} (put it back; what was built of it stays as it is): fetch[tiny]" in text
    # All that was built is there, and a build has nothing to do.
    assert build(root) == set()
    assert outputs(root) == built
    with llmbuild.open(root, cache=root.parent / "store", locked=True) as workspace:
        assert not workspace.plan(*TASKS).stale
    lock = (root / "llmbuild.lock").read_bytes()
    with pytest.raises(LlmbuildError, match="source gone"), open_project(root) as workspace:
        workspace.lock()
    # What needs its bytes says so before anything runs.
    (root / "buildfile.toml").write_text(TINY_MANIFEST.replace("q4f32_1", "q0f32"))
    with open_project(root) as workspace:
        states = {one.task.label: one.state for one in workspace.plan(*TASKS).verdicts}
        assert states["fetch[tiny]"] == "blocked"
        assert states["quantize[tiny, q0f32]"] == "run"
        assert "source gone" in str(workspace.why("quantize[tiny, q0f32]").plan.verdicts[0].reasons)
    with pytest.raises(LlmbuildError, match=f"source gone: {gone}") as caught:
        build(root)
    assert caught.value.exit_code == ExitCode.FETCH
    # Only the configuration needs no weights, and small files are in the store.
    assert build(root, "config") == {"config"}
    with pytest.raises(BuildError, match="source gone"):
        build(root, keep_going=True)
    assert (root / "llmbuild.lock").read_bytes() == lock
    aside.rename(root / gone)
    assert build(root) >= {"quantize"}


def test_a_checkpoint_that_was_never_there_is_an_error(root: Path) -> None:
    shutil.rmtree(root / "checkpoint")
    with pytest.raises(FetchError, match="does not exist"), open_project(root) as workspace:
        workspace.plan()


def test_a_touched_file_is_fetched_again_only_where_it_is_read(root: Path) -> None:
    build(root)
    os.utime(weights(root), (2e9, 1.5e9))
    assert build(root) == set()
    assert build(root, "quantize", force=True) == {"fetch", "quantize"}


def test_a_check_and_exec_read_the_file_again(root: Path, tmp_path: Path) -> None:
    build(root, "quantize")
    assert build(root, "fetch", "quantize", check=True) == set()
    store = Store(tmp_path / "store")
    (fetched,) = (trace for trace in store.traces.all() if trace.kind == "fetch")
    assert execute(store, fetched.action).tree.digest == fetched.output
    for entry in store.cas.get_tree(fetched.output).files:
        store.cas.link_out(entry.digest, tmp_path / "out" / entry.path)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights(root).read_bytes()
    assert (tmp_path / "out" / "model.safetensors").stat().st_ino != weights(root).stat().st_ino
    store.close()


def test_a_check_of_a_touched_file_has_it_fetched_before(root: Path, tmp_path: Path) -> None:
    build(root)
    os.utime(weights(root), (2e9, 1.5e9))
    store = Store(tmp_path / "store")
    (quantized,) = (trace for trace in store.traces.all() if trace.kind == "quantize")
    with pytest.raises(MissingBlobError, match=f"it was read from {weights(root)}, which is not as it was"):
        execute(store, quantized.action)
    store.close()
    assert build(root, check=True) == {"fetch"}
    weights(root).rename(root / "aside")
    with pytest.raises(BuildError, match="source gone") as caught:
        build(root, check=True)
    assert {error.exit_code for error in caught.value.outcome.errors} == {ExitCode.FETCH}
    # Of what is not read the check needs nothing.
    assert build(root, "config", check=True) == set()


@pytest.mark.parametrize("instead", ["directory", "pipe"])
def test_what_stands_in_the_place_of_weights_is_no_other_size_of_them(root: Path, instead: str) -> None:
    build(root)
    weights(root).rename(root / "aside")
    if instead == "directory":
        weights(root).mkdir()
    else:
        os.mkfifo(weights(root))
    with llmbuild.open(root, cache=root.parent / "store", locked=True) as workspace:
        assert not workspace.plan(*TASKS).stale


def test_a_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "one"
    root.mkdir()
    make_gguf(root / "some.gguf", "llama3")
    local.KEPT_FROM = 1 << 10
    (root / "buildfile.toml").write_text(TINY_MANIFEST.replace('"checkpoint"', '"some.gguf"'))
    old(root / "some.gguf")
    assert build(root) == {"fetch", "inspect", "quantize", "config"}
    assert build(root) == set()
    during_the_build(monkeypatch, lambda: edit_mapped(root / "some.gguf"), open_, "read_metadata")
    with pytest.raises(BuildError, match="changed while the build was running"):
        build(root, "config", force=True)


def test_projects_share_what_the_first_one_has_while_it_stands(root: Path, tmp_path: Path) -> None:
    build(root, "fetch")
    two = make(tmp_path, "two")
    # The second one's fetch is the first one's, whose file is read.
    assert build(two) == {"inspect", "quantize", "config"}
    for change in (shutil.rmtree, lambda directory: edit(directory / "model.safetensors")):
        change(root / "checkpoint")
        assert build(two, "quantize", force=True) == {"fetch", "quantize"}
        shutil.rmtree(root, ignore_errors=True)
        make(tmp_path, "one")
        build(root, "fetch", force=True)
    assert str(tmp_path) not in (two / "llmbuild.lock").read_text()


def test_upkeep_knows_what_lies_elsewhere(root: Path, tmp_path: Path) -> None:
    build(root)
    store = Store(tmp_path / "store")
    assert audit(store).findings == ()
    edit(weights(root))
    assert audit(store).findings == ()
    ((digest, path),) = store.cas.places.all()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    (finding,) = audit(store, repair=True).findings
    assert finding.fault == "stray-file"
    assert finding.name == f"in-place/{digest[:2]}/{digest[2:]}"
    assert list(store.cas.places.all()) == []
    store.close()


def test_a_collection_forgets_a_place_with_the_last_result_that_has_it(root: Path, tmp_path: Path) -> None:
    build(root)
    store = Store(tmp_path / "store")
    collect(store, Retention(grace=0), lambda _project: None)
    assert len(list(store.cas.places.all())) == 1
    collect(store, Retention(max_size=0, keep=0, grace=0), lambda _project: None, now=time.time() + 3600)
    assert list(store.cas.places.all()) == []
    store.close()
    assert weights(root).is_file()
    assert build(root) == {"fetch", "inspect", "quantize", "config"}


def test_an_archive_has_the_bytes_or_leaves_the_result_out(root: Path, tmp_path: Path) -> None:
    build(root)
    store = Store(tmp_path / "store")
    actions = [trace.action for trace in store.traces.all()]
    packed = export(store, actions, tmp_path / "cache.tar")
    assert packed.missing == ()
    elsewhere = Store(tmp_path / "elsewhere")
    import_archive(elsewhere, tmp_path / "cache.tar")
    (digest,) = (digest for digest, _ in store.cas.places.all())
    assert elsewhere.cas.has(digest)
    edit_mapped(weights(root))
    store.cas.places.put(*_believed(store, weights(root)))
    with pytest.raises(FetchError, match="changed while the build was running"):
        export(store, actions, tmp_path / "more.tar")
    assert not (tmp_path / "more.tar").exists()
    packed = export(store, actions, tmp_path / "less.tar")
    assert len(packed.missing) == 1
    assert import_archive(Store(tmp_path / "third"), tmp_path / "less.tar").traces == len(actions) - 1


def test_an_archive_has_no_other_bytes_than_its_names_say(root: Path, tmp_path: Path) -> None:
    build(root)
    store = Store(tmp_path / "store")
    other = tmp_path / "other.safetensors"
    other.write_bytes(weights(root).read_bytes()[::-1])
    ((digest, _),) = store.cas.places.all()
    with other.open("rb", buffering=0) as file:
        _, size, pieces = digest_pieces(file, lambda _count: None)
    # Whoever shares the store can write such a record: each piece is right, and the whole is another file.
    store.cas.places.put(Pieces(other, digest, size, pieces), stamp_of(other.stat()))
    with pytest.raises(FetchError, match="its SHA-256 was"):
        export(store, [trace.action for trace in store.traces.all()], tmp_path / "cache.tar")
    assert not (tmp_path / "cache.tar").exists()
    assert list(store.cas.places.all()) == []
    store.close()


def test_an_export_names_what_it_leaves_out_and_why(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(root)
    os.utime(weights(root), (2e9, 1.5e9))
    where = ["--cache-dir", str(tmp_path / "store"), "-f", str(root / "buildfile.toml")]
    assert main(["cache", "export", str(tmp_path / "cache.tar"), *TASKS, *where]) == ExitCode.OK
    said = capsys.readouterr().out.splitlines()
    assert said[-2].startswith("exported 3 traces")
    assert said[-1] == "left out, because files of theirs are gone or changed: fetch[tiny]"


def _believed(store: Store, path: Path) -> tuple[object, ...]:
    """The record of a file with the stat that it has now."""
    ((digest, record),) = store.cas.places.all()
    return Place(record.read_bytes()).pieces(digest), stamp_of(path.stat())
