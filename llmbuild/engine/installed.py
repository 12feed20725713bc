"""The record of what llmbuild put into a project: `.llmbuild/installed.json`.

A repository may bring such a file along, so it is read with distrust: what is not of the right form, or lies outside the output
directories that the record itself names, counts as if it were not there, and the file that it names as the user's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from llmbuild.canonical import Digest, Json, canonical_json, parse_digest
from llmbuild.engine import files, fs
from llmbuild.engine.names import unfit
from llmbuild.engine.verified import Stamp
from llmbuild.jsontext import parse_json

RECORD = Path(".llmbuild") / "installed.json"
_FORMAT = 2
_MOST_BYTES = 64 << 20


class InstalledFile(NamedTuple):
    """A file that llmbuild put into the project, for the task `label` of `manifest`.

    `stamp` is None while an install is under way; the file then has `digest` or `previous`, what was there before.
    `manifest` is the file name of the manifest, or None where a llmbuild that knew only one manifest wrote the record.
    """

    digest: Digest
    label: str
    manifest: str | None
    stamp: Stamp | None = None
    previous: Digest | None = None


class Moving(NamedTuple):
    """A directory is being exchanged: the prepared one had this inode, and `directory` is the name that it gets."""

    directory: str
    inode: int


@dataclass(slots=True)
class Record:
    """The files by path; the output directories that they lie in; the exchanges under way, by the temporary name."""

    files: dict[str, InstalledFile] = field(default_factory=dict)
    outputs: frozenset[str] = frozenset()
    moving: dict[str, Moving] = field(default_factory=dict)

    def copy(self) -> Record:
        return Record(dict(self.files), self.outputs, dict(self.moving))


def load(root: Path, outputs: Iterable[str] = ()) -> Record:
    """The record of a project, with its valid entries; an empty one when there is none.  `outputs` are directories that the
    manifest of this build writes to."""
    try:
        value = parse_json((root / RECORD).read_bytes(), most_bytes=_MOST_BYTES)
    except (OSError, ValueError):
        return Record(outputs=frozenset(outputs))
    if not isinstance(value, dict):
        return Record(outputs=frozenset(outputs))
    if value.get("format") != _FORMAT:
        entries = _entries(value, of_many=False)
        known = frozenset((*outputs, *_outputs_of(entries)))
        return Record(_within(entries, known), known)
    named = value.get("outputs")
    found = {one for one in named if isinstance(one, str) and not unfit(one)} if isinstance(named, list) else set()
    known = frozenset(outputs) | found
    entries = _within(_entries(value.get("files"), of_many=True), known)
    moving = {}
    for name, row in _items(value.get("moving")):
        if _is_list(row) and len(row) == 2 and isinstance(row[0], str) and _is_count(row[1]):
            above, _, last = name.rpartition("/")
            directory = row[0]
            beside = last.startswith(files.TEMPORARY) and above == directory.rpartition("/")[0]
            if beside and not unfit(directory) and beneath(directory, known) is not None:
                moving[name] = Moving(directory, row[1])
    return Record(entries, known, moving)


def save(root: Path, record: Record, *, durable: bool = False) -> None:
    """Write the record.  Raises StoreError."""
    used = {beneath(path, record.outputs) for path in record.files}
    rows: dict[str, Json] = {
        path: [one.digest, one.label, one.stamp, one.previous, one.manifest] for path, one in record.files.items()
    }
    value: dict[str, Json] = {
        "format": _FORMAT,
        "outputs": sorted(one for one in used if one is not None),
        "files": rows,
        "moving": {name: [one.directory, one.inode] for name, one in record.moving.items()},
    }
    files.write_atomic(root / RECORD, canonical_json(value), durable=durable, elsewhere=fs.PROJECT)


def beneath(path: str, directories: Collection[str]) -> str | None:
    """The one of the directories that a path is or lies in, or None."""
    if path in directories:
        return path
    end = path.rfind("/")
    while end > 0:
        if path[:end] in directories:
            return path[:end]
        end = path.rfind("/", 0, end)
    return None


def _within(entries: dict[str, InstalledFile], outputs: Collection[str]) -> dict[str, InstalledFile]:
    return {path: one for path, one in entries.items() if beneath(path, outputs) is not None}


def _entries(value: Any, *, of_many: bool) -> dict[str, InstalledFile]:
    found = {}
    for path, row in _items(value):
        one = _entry(row, of_many=of_many)
        if one is not None and not unfit(path):
            found[path] = one
    return found


def _entry(row: Any, *, of_many: bool) -> InstalledFile | None:
    if not _is_list(row) or len(row) != (5 if of_many else 4):
        return None
    digest, label, stamp, previous = row[:4]
    manifest = row[4] if of_many else None
    if not isinstance(label, str) or not (manifest is None or _is_file_name(manifest)):
        return None
    if stamp is not None and not (_is_list(stamp) and len(stamp) == 4 and all(map(_is_count, stamp))):
        return None
    try:
        return InstalledFile(
            parse_digest(digest),
            label,
            manifest,
            None if stamp is None else (stamp[0], stamp[1], stamp[2], stamp[3]),
            None if previous is None else parse_digest(previous),
        )
    except ValueError:
        return None


def _outputs_of(paths: Iterable[str]) -> set[str]:
    """The output directories of a record that does not name them: results have one of three places in theirs."""
    found = set()
    for path in paths:
        parts = path.split("/")
        model = next((at for at, part in enumerate(parts) if part.endswith("-MLC")), 0)
        end = model or (len(parts) - 2 if len(parts) > 2 and parts[-2] in ("libs", "provenance") else 0)
        if end:
            found.add("/".join(parts[:end]))
    return found


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= 64


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and "/" not in value and not unfit(value)
