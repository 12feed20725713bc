"""Running one action: lay out its inputs, do the work, take the output in, and only then write its trace."""

from __future__ import annotations

import contextlib
import errno
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.canonical import Digest
from llmbuild.checkpoints.pieces import ChangedError
from llmbuild.engine import files, fs
from llmbuild.engine.action import Action, TreeInput
from llmbuild.engine.intermediates import Intermediates
from llmbuild.engine.kind import Job, Progress, no_progress
from llmbuild.engine.lookup import Cached
from llmbuild.engine.passing import Passer
from llmbuild.engine.places import Keeper
from llmbuild.engine.registry import load_kind, wrong_part
from llmbuild.engine.store import ActionRecord, Store
from llmbuild.engine.trace import MOST_NOTE, MOST_NOTES, Trace
from llmbuild.engine.tree import Tree
from llmbuild.errors import InputError, LlmbuildError, UsageError
from llmbuild.printable import printable

if TYPE_CHECKING:
    from llmbuild.checkpoints.pieces import Pieces

_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


def execute(
    store: Store,
    action: Digest,
    *,
    progress: Progress = no_progress,
    log: Callable[[], Path | None] = lambda: None,
    dump: Path | None = None,
) -> Cached:
    """Run a recorded action and return its result, which is in the store then.

    `log` is called after the work and returns the file with what the task printed.  Nothing becomes visible unless all
    succeeded.  Raises what the task raises; MissingBlobError when an input is not in the store; StoreError when the disk fails;
    UsageError when the record does not fit this version of llmbuild.
    """
    record = store.get_action(action)
    input_size = _input_size(store, record.action)
    resume = store.resume_path(action)
    with store.work_dir() as work:
        notes: list[str] = []
        keeps = load_kind(record.action.kind).intermediates and dump is None
        kept = Intermediates(store.intermediates_path, record.action, store.scratch) if keeps else None
        output, wall, cpu, peak = run_in(store, record, work, progress, resume, notes, dump, kept)
        log_file = log()
        with fs.translate_errors("store a log", work):
            log_digest = store.cas.put_file(log_file)[0] if log_file is not None and log_file.stat().st_size else None
        trace = Trace(
            action=action,
            kind=record.action.kind,
            label=record.label,
            project=record.project,
            key=record.action.key(),
            output=output.digest,
            output_size=sum(entry.size for entry in output.files),
            wall_s=round(wall, 6),
            cpu_s=round(cpu, 6),
            peak_rss=peak,
            log=log_digest,
            finished=time.time(),
            input_size=input_size,
            notes=tuple(notes[:MOST_NOTES]),
            reused=(kept.taken, kept.taken + kept.made) if kept is not None and kept.taken + kept.made else None,
        )
        store.traces.put(trace)
        if load_kind(trace.kind).resumable:
            with contextlib.suppress(OSError):
                files.remove_tree(resume, store.root)
        return Cached(trace, output)


def rerun(store: Store, action: Digest, *, progress: Progress = no_progress) -> Tree:
    """Run a recorded action again from nothing, whatever its trace says, and return what came out.

    The output's blobs are in the store then, but no trace: nothing uses them.  Raises as `execute` does.
    """
    with store.work_dir() as work:
        return run_in(store, store.get_action(action), work, progress)[0]


def run_in(
    store: Store,
    record: ActionRecord,
    work: Path,
    progress: Progress,
    resume: Path | None = None,
    notes: list[str] | None = None,
    dump: Path | None = None,
    intermediates: Intermediates | None = None,
) -> tuple[Tree, float, float, int]:
    """Run an action inside the directory `work` and take its output into the store, without a trace.

    Returns the output tree, wall and CPU seconds, and the peak resident set in bytes.  A check that runs an action again to
    compare uses this.  A resumable task keeps in `resume` what a later run can go on with.  Its notes are added to `notes`,
    each once.  `dump` and `intermediates` are those of `Job`.
    """
    action = record.action
    kind = load_kind(action.kind)
    if kind.version != action.version or set(kind.params) != set(action.params):
        raise UsageError(
            f"the action of {record.label} was recorded by another version of llmbuild",
            fix="run `llmbuild build` again",
        )
    directories = {name: isinstance(value, TreeInput) for name, value in action.inputs.items()}
    if (wrong := wrong_part(action.kind, action.params, directories)) is not None:
        raise UsageError(
            f"the action of {record.label} is none that llmbuild records", why=wrong, fix="run `llmbuild build` again"
        )
    inputs: dict[str, Path] = {}
    trees: dict[str, Tree] = {}
    checks: dict[Path, Pieces] = {}
    for name, value in action.inputs.items():
        if isinstance(value, TreeInput):
            inputs[name], trees[name] = work / "inputs" / name, store.cas.get_tree(value.tree)
            store.cas.materialize(trees[name], inputs[name], checks if kind.in_place else None)
        else:
            inputs[name] = store.cas.path(value.blob)
    resume = resume if kind.resumable else None
    if resume is not None:
        with fs.translate_errors("make the directories of a task", resume):
            _take_over(resume, store.root)
    keeper = Keeper(work / "out")
    passer = Passer(work / "out", inputs, trees)

    def note(text: str) -> None:
        line = " ".join(printable(_shorten(text, work / "inputs")).split())[:MOST_NOTE]
        if notes is not None and line not in notes:
            notes.append(line)

    job = Job(
        action.params,
        inputs,
        action.hints,
        work / "out",
        work / "scratch",
        progress,
        resume,
        checks=checks,
        keep=keeper,
        note=note,
        dump=dump,
        trees=trees,
        pass_on=passer,
        intermediates=intermediates,
    )
    started, cpu_before = time.perf_counter(), _cpu_seconds()
    try:
        kind.run(job)
    except LlmbuildError as error:
        if isinstance(error, ChangedError):
            store.distrust(error.path, error.digest)
        _name_inputs(error, work / "inputs")
        raise
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise fs.store_error(error, f"write the output of {record.label}", store.root) from error
        raise
    wall, cpu = time.perf_counter() - started, _cpu_seconds() - cpu_before
    try:
        output = store.cas.put_tree(job.out, move=True, kept=keeper.kept, passed=passer.passed)
    except InputError as error:
        error.where = f"{record.label}: {error.where}"
        raise
    return output, wall, cpu, peak_rss()


def _take_over(resume: Path, root: Path) -> None:
    """Remove everything but files from the directory of what a task had done already, which is made where it is missing.
    Raises OSError.

    A task writes to files there, and whoever shares the store may have left links to other files under their names.
    """
    if not resume.is_dir() or resume.is_symlink():
        files.remove_tree(resume, root)
    fs.current.mkdir(resume)
    for path in resume.iterdir():
        if path.is_symlink() or not path.is_file():
            files.remove_tree(path, root)


def _name_inputs(error: LlmbuildError, inputs: Path) -> None:
    """Write `checkpoint/config.json` in place of the path of the directory that the inputs were laid out in."""

    error.what = _shorten(error.what, inputs)
    error.where, error.why, error.fix = (
        _shorten(text, inputs) if text is not None else None for text in (error.where, error.why, error.fix)
    )


def _shorten(text: str, inputs: Path) -> str:
    return text.replace(f"{inputs}/", "")


def _input_size(store: Store, action: Action) -> int:
    """The size of an action's inputs in bytes."""
    size = 0
    for value in action.inputs.values():
        if isinstance(value, TreeInput):
            size += sum(entry.size for entry in store.cas.get_tree(value.tree).files)
        else:
            size += store.cas.path(value.blob).stat().st_size
    return size


def peak_rss() -> int:
    """The peak resident set of this process or of its largest child, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    try:
        # ru_maxrss of a process starts at its parent's size, because it survives exec; VmHWM does not.
        own = int(files.read_bytes("/proc/self/status").partition(b"VmHWM:")[2].split(None, 1)[0]) * 1024
    except (OSError, IndexError, ValueError):
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return max(own, children)


def _cpu_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )
