"""The platforms that options name: by their names, by patterns, and by the aliases of their targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmbuild.manifest.project import Project


def platforms_named(project: Project, names: Sequence[str]) -> tuple[str, ...]:
    """The project's platforms that these names call; a name that calls none stays as it is, for whoever refuses it.

    Raises UsageError where the project's own target files cannot be read.
    """
    if all(name in project.platforms for name in names):
        return tuple(names)
    from llmbuild.manifest.calling import called
    from llmbuild.manifest.load import USER_TARGETS
    from llmbuild.targets.names import TargetNames

    targets = TargetNames(Path(project.root) / USER_TARGETS)
    platforms = {name: platform.target for name, platform in project.platforms.items()}
    return tuple(platform for name in names for platform in called(name, platforms, targets) or (name,))
