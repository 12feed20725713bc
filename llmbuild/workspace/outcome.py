"""The outcome of a build: the end of each task, and the outputs in the project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.engine.outcome import BuildResult
from llmbuild.errors import ExitCode, LlmbuildError, VerifyError

if TYPE_CHECKING:
    from llmbuild.canonical import Digest
    from llmbuild.engine.executor import TaskFailure
    from llmbuild.engine.install import Installation
    from llmbuild.report.events import Checked


@dataclass(frozen=True, slots=True)
class Output:
    """A library or a model directory in the project, by its absolute path.

    `files` are the SHA-256 of its files by their paths in it; a library has its own name there.  `digest` is the SHA-256 of
    a library, or of the list of a directory's files.  `tasks` are the labels of the tasks that made it.
    """

    path: Path
    digest: Digest
    files: Mapping[str, Digest]
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuildOutcome:
    """A build that ended.  `result` has the end of each task by label, `checks` the results of those that `check` ran again,
    and `installed` what was installed into the project below `root`."""

    result: BuildResult
    root: Path
    installed: Sequence[Installation]
    checks: Mapping[str, Checked | TaskFailure]

    @property
    def ok(self) -> bool:
        return self.result.ok and not self.errors

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What the build left in the project, in plan order: new, restored, or there already.  A directory that only some
        tasks of this build fill (such as its configuration alone) has only their files here."""
        by_dest: dict[str, list[Installation]] = {}
        for one in self.installed:
            by_dest.setdefault(one.install.dest, []).append(one)
        return tuple(_output(self.root, dest, items) for dest, items in by_dest.items())

    @property
    def errors(self) -> tuple[LlmbuildError, ...]:
        """What went wrong: the differences that a check found, then the failed tasks in plan order."""
        differing: list[LlmbuildError] = []
        failed: list[LlmbuildError] = []
        for label, outcome in self.result.outcomes.items():
            if outcome.failure is not None:
                failed.append(_failed(label, outcome.failure))
        for label, check in self.checks.items():
            error = _checked(label, check)
            if error is not None:
                (differing if error.exit_code == ExitCode.VERIFY else failed).append(error)
        return (*differing, *failed)


class BuildError(LlmbuildError):
    """Tasks failed, or gave other bytes when a check ran them again.

    `what`, `where`, `why`, `fix` and the exit code are those of the first one; `outcome` has the others in `errors`, and what
    was built nevertheless.
    """

    def __init__(self, outcome: BuildOutcome) -> None:
        first = outcome.errors[0]
        super().__init__(first.what, where=first.where, why=first.why, fix=first.fix)
        self.exit_code = first.exit_code
        self.outcome = outcome


def _failed(label: str, failure: TaskFailure) -> LlmbuildError:
    error = failure.to_error()
    where = f"{error.where}: " if error.where else ""
    named = LlmbuildError(f"{label} failed: {where}{error.what}", why=error.why, fix=error.fix)
    named.exit_code = error.exit_code
    return named


def _checked(label: str, check: Checked | TaskFailure) -> LlmbuildError | None:
    from llmbuild.report.events import Checked

    if not isinstance(check, Checked):
        return _failed(label, check)
    if not check.differences:
        return None
    return VerifyError(
        f"{label}: the same inputs gave other bytes",
        why="\n".join(str(difference) for difference in check.differences),
        fix=f"`llmbuild exec {check.action[:16]}` runs it again",
    )


def _output(root: Path, dest: str, items: Sequence[Installation]) -> Output:
    from llmbuild.engine.deciding import destinations
    from llmbuild.engine.tree import FileEntry, Tree

    path = root / dest
    labels = tuple(dict.fromkeys(one.label for one in items))
    found = {place: entry for one in items for entry, place in destinations(one)}
    if dest in found:
        return Output(path, found[dest].digest, {path.name: found[dest].digest}, labels)
    inside = {place[len(dest) + 1 :]: entry for place, entry in found.items()}
    tree = Tree.of(FileEntry(name, one.digest, one.size, one.executable) for name, one in inside.items())
    return Output(path, tree.digest, {one.path: one.digest for one in tree.files}, labels)
