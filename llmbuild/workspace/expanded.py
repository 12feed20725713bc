"""The project of a manifest, from the cache where nothing that it was expanded from has changed.

The expanded manifest is cached in `.llmbuild/`, so that a plan of an unchanged one imports neither pydantic nor tomllib.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from llmbuild.canonical import Digest, Json, canonical_json, digest_json
from llmbuild.engine import files
from llmbuild.engine.seal import Seal
from llmbuild.errors import StoreError
from llmbuild.jsontext import parse_json
from llmbuild.manifest.inputs_read import Read, all_current
from llmbuild.manifest.project import Project
from llmbuild.workspace.beside import keep_schema
from llmbuild.workspace.manifests import project_file
from llmbuild.workspace.tool_identities import Toolchain

_FORMAT = 3


@dataclass(frozen=True, slots=True)
class Manifest:
    """A loaded manifest; each plan and build prints its `notes`."""

    project: Project
    notes: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        return Path(self.project.root)


def load_manifest(path: Path, toolchain: Toolchain) -> Manifest:
    """The project of a manifest: from the cache when nothing it was made from changed, else by reading it.

    The cache counts only for the same llmbuild (by content), Python and place.  Raises what `manifest.load.load` does.
    """
    root = path.absolute().parent
    place = project_file(root, path.name)
    key = digest_json(
        {
            "format": _FORMAT,
            "file": str(path),
            "root": str(root),
            "llmbuild": toolchain.llmbuild[1],
            "python": sys.version,
        }
    )
    cached = _cached_manifest(place, key, toolchain.seal)
    if cached is not None:
        return cached
    from llmbuild.manifest.load import load

    loaded = load(path)
    keep_schema(path)
    notes = tuple(dict.fromkeys(loaded.notes))
    value: dict[str, Json] = {
        "key": key,
        "reads": [read.to_json() for read in loaded.reads],
        "project": loaded.project.to_json(),
        "notes": list(notes),
    }
    _write_quietly(place, value, toolchain.seal)
    # A first run and a later one that reads the cache must get the same value, down to tuples and lists.
    return Manifest(Project.from_json(json.loads(canonical_json(loaded.project.to_json()))), notes)


def _cached_manifest(place: Path, key: Digest, seal: Seal | None) -> Manifest | None:
    try:
        data = place.read_bytes()
        # A project's directory may have a stranger's file in this place.
        if seal is None or not seal.holds(data):
            return None
        value = parse_json(data)
        if value["key"] != key or not all_current(Read.from_json(read) for read in value["reads"]):
            return None
        return Manifest(Project.from_json(value["project"]), tuple(value["notes"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write_quietly(place: Path, value: dict[str, Json], seal: Seal | None) -> None:
    """Cache the value.  A project directory that cannot be written costs the cache alone; a build reports the error."""
    with contextlib.suppress(StoreError, OSError):
        data = canonical_json(value) if seal is None else seal.put(value)
        place.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(place, data)
