"""The other manifests of a directory as they are today: the lock file is for all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.errors import LlmbuildError, UsageError
from llmbuild.manifest.project import Project
from llmbuild.workspace.expanded import load_manifest
from llmbuild.workspace.manifests import manifest_name, other_manifests
from llmbuild.workspace.tool_identities import Toolchain

if TYPE_CHECKING:
    from llmbuild.workspace.snapshot import Snapshot

_TABLE = re.compile(rb"^\s*\[\s*models\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The projects of the other manifests; `all_read` is true where each of them could be read, now or earlier."""

    projects: tuple[Project, ...]
    all_read: bool


def neighbours(project: Project, toolchain: Toolchain) -> Neighbours:
    """The other manifests beside a project's own one: those that a command has loaded before, and every TOML file that has
    models.  One that is wrong now counts as it was when it was last valid."""
    root = Path(project.root)
    known = dict(other_manifests(project, toolchain.seal))
    all_read = True
    for name in _files_with_models(root, manifest_name(project)):
        known.setdefault(name, None)
    projects = []
    for name, before in sorted(known.items()):
        found = before
        if name:
            try:
                found = load_manifest(root / name, toolchain).project
            except LlmbuildError:
                found = before
        if found is None:
            all_read = False
        else:
            projects.append(found)
    return Neighbours(tuple(projects), all_read)


def _files_with_models(root: Path, own: str) -> list[str]:
    """The TOML files of a directory that may be manifests."""
    from llmbuild.tomlfile import read_toml

    found = []
    for path in sorted(root.glob("*.toml")):
        if path.name == own or not path.is_file():
            continue
        try:
            if isinstance(read_toml(path).data.get("models"), dict):
                found.append(path.name)
        except UsageError:
            if _looks_like_one(path):
                found.append(path.name)
    return found


def _looks_like_one(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _TABLE.search(file.read(1 << 20)) is not None
    except OSError:
        return False


def require_no_claims(snapshot: Snapshot) -> None:
    """Raise UsageError where another manifest of the directory has results in the same places."""
    from llmbuild.engine.install import require_unclaimed

    whole = snapshot.whole
    if other_manifests(whole, snapshot.store.seal):
        dests = {install.dest for task in snapshot.tasks for install in task.installs}
        require_unclaimed(Path(whole.root), dests, manifest_name(whole), whole.output)
