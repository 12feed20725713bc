"""The manifests of one directory: each has results, a history, a last build and pins of its own.

A command that loads a manifest caches the expanded project in `.llmbuild/`, where other commands find it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.canonical import digest_json
from llmbuild.engine.seal import Seal
from llmbuild.errors import LlmbuildError, Where
from llmbuild.jsontext import parse_json
from llmbuild.manifest.project import Project
from llmbuild.workspace.place import MANIFEST, STATE_DIR

if TYPE_CHECKING:
    from llmbuild.tomlfile import KeyPath


def project_file(root: Path, name: str) -> Path:
    """The file that caches the expanded project of a manifest, named by a digest of the manifest's name."""
    return root / STATE_DIR / f"project-{digest_json(name)[:16]}.json"


def manifest_name(project: Project) -> str:
    """The file name of a project's manifest, unique among the manifests of its directory."""
    return Path(project.file).name


def place_of(project: Project, key: KeyPath) -> Where:
    """Where a key is written in a project's manifest; without the line where the manifest cannot be read any more."""
    from llmbuild.tomlfile import dotted, read_toml

    try:
        return read_toml(Path(project.root) / manifest_name(project), project.file).where(key)
    except LlmbuildError:
        return Where(project.file, key=dotted(key))


def identity(project: Project) -> str:
    """A store's name for a project: its directory, or where the manifest has another name than usual, its path."""
    name = manifest_name(project)
    return project.root if name == MANIFEST else f"{project.root}/{name}"


def known_manifests(root: Path, seal: Seal | None) -> Mapping[str, Project | None]:
    """The manifests of a directory that some command has loaded and that are still there, by file name.

    The value is the project as it was then, or None where that can no longer be read, or lacks the store's seal: a
    repository may bring such files along.  The name is "" where it is unknown too.
    """
    return _known(root, seal, ())


def other_manifests(project: Project, seal: Seal | None) -> Mapping[str, Project | None]:
    """As `known_manifests`, without the project's own one."""
    own, root = manifest_name(project), Path(project.root)
    found = _known(root, seal, (project_file(root, own),))
    return {name: other for name, other in found.items() if name != own}


def _known(root: Path, seal: Seal | None, without: Collection[Path]) -> dict[str, Project | None]:
    found: dict[str, Project | None] = {}
    for path in sorted((root / STATE_DIR).glob("project-*.json")):
        if path in without:
            continue
        project = _read(path, seal)
        names = (MANIFEST, *(other.name for other in root.glob("*.toml")))
        name = next((name for name in names if project_file(root, name) == path), "")
        if project is not None:
            name = manifest_name(project)
        # Without a name it may be of any manifest, and counts as one that is there.
        if not name or (root / name).is_file():
            found[name] = project
    return found


def _read(path: Path, seal: Seal | None) -> Project | None:
    """The project in a file that a command of this store's user wrote."""
    try:
        data = path.read_bytes()
        if seal is None or not seal.holds(data):
            return None
        return Project.from_json(parse_json(data)["project"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Another llmbuild wrote it.
        return None
