"""Packages by name: the tasks that make them, and which of those that were made are out of date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.engine.labels import make_label
from llmbuild.errors import UsageError, did_you_mean
from llmbuild.plan.planner import Built

if TYPE_CHECKING:
    from llmbuild.canonical import Digest
    from llmbuild.manifest.project import Project
    from llmbuild.workspace.snapshot import Snapshot


def package_labels(project: Project, names: Sequence[str]) -> tuple[str, ...]:
    """The labels of the tasks that make the named packages, or all without names.  Raises UsageError for a name that is none,
    and where the manifest has no packages."""
    if not project.packages:
        raise UsageError(
            "the manifest has no packages",
            where=project.file,
            fix="add one, such as [package.server]; docs/packages.md has the kinds",
        )
    for name in names:
        if name not in project.packages:
            listed = f"the packages are: {', '.join(project.packages)}"
            raise UsageError(
                f"there is no package '{name}'",
                where=project.file,
                fix=did_you_mean(name, project.packages) or listed,
            )
    return tuple(make_label("package", name) for name in dict.fromkeys(names or project.packages))


def outdated(snapshot: Snapshot, outputs: Mapping[str, Digest]) -> tuple[str, ...]:
    """The packages that were made and are not what a package task would write now, given the outputs of the other tasks by label.

    What only a package needs is looked up, and nothing is run.
    """
    root, world = Path(snapshot.whole.root), snapshot.world
    made = {one.name for one in (*world.project.packages.values(), *world.unpinned) if (root / one.output).is_dir()}
    unpinned = {one.name for one in world.unpinned}
    stale = {name for name in made if name in unpinned or not _current(snapshot, name, outputs)}
    return tuple(name for name in snapshot.whole.packages if name in stale)


def outdated_note(snapshot: Snapshot, outputs: Mapping[str, Digest]) -> str | None:
    """A sentence that names the packages that are out of date; None where none is."""
    names = outdated(snapshot, outputs)
    if not names:
        return None
    said = f"package {names[0]} is" if len(names) == 1 else f"packages {', '.join(names)} are"
    return (
        f"{said} not up to date; `llmbuild package {' '.join(names)}` makes {'it' if len(names) == 1 else 'them'} again"
    )


def _current(snapshot: Snapshot, name: str, outputs: Mapping[str, Digest]) -> bool:
    known = dict(outputs)
    for task in snapshot.world.tasks:
        if task.package != name:
            continue
        needed = {ref.task for ref in task.inputs.values()}
        if not needed <= known.keys():
            return False
        action = snapshot.knowledge.bind(task, {label: known[label] for label in needed})
        result = None if action is None else snapshot.knowledge.recall(action.digest)
        if not isinstance(result, Built) or snapshot.knowledge.installed(task, result.output):
            return False
        known[task.label] = result.output
    return True
