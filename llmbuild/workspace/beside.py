"""What lies beside a manifest for other tools: lines of .gitignore, and the schema that editors read."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from llmbuild.engine import fs
from llmbuild.engine.files import write_atomic
from llmbuild.errors import StoreError, UsageError
from llmbuild.jsontext import parse_json
from llmbuild.version import __version__
from llmbuild.workspace.place import STATE_DIR
from llmbuild.workspace.replacing import require_file

IGNORE = ".gitignore"
SCHEMA = f"{STATE_DIR}/schema.json"
"""Beside the manifest, which names it in its first line: `#:schema ./.llmbuild/schema.json`."""

DIRECTIVE = f"#:schema ./{SCHEMA}"
"""What Taplo and the editors that use it read (https://taplo.tamasfe.dev/configuration/directives.html)."""

_MOST = 1 << 20


def add_to_ignore(directory: Path, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Add the directories to .gitignore that no line of it has, and return them; what is there stays as it is.

    Raises UsageError where it is no file, StoreError where it cannot be read or written.
    """
    path = directory / IGNORE
    require_file(path)
    if path.is_symlink():
        raise UsageError(
            "is a symbolic link, and lines would be added to what it leads to",
            where=str(path),
            fix=f"put the file itself there, or add {' and '.join(wanted)} yourself",
        )
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape") if path.exists() else ""
    except OSError as error:
        raise StoreError("cannot be read", where=str(path), why=error.strerror or str(error)) from error
    there = {line.strip().strip("/") for line in text.splitlines()}
    added = tuple(name for name in wanted if name.strip("/") not in there)
    if added:
        end = "\r\n" if "\r\n" in text else "\n"
        gap = "" if not text or text.endswith("\n") else end
        lines = (gap + "".join(f"{name}{end}" for name in added)).encode()
        # Owner and rights of a file that is there stay too.
        with fs.translate_errors("write a file", str(path), fs.PROJECT), path.open("ab") as file:
            file.write(lines)
    return added


def write_schema(directory: Path) -> bool:
    """Write the schema where it is missing or another llmbuild's; whether it was written.  Raises StoreError."""
    path = directory / SCHEMA
    if _is_ours(path):
        return False
    from llmbuild.manifest.json_schema import json_schema

    path.parent.mkdir(exist_ok=True)
    write_atomic(path, (json.dumps(json_schema(), indent=2) + "\n").encode(), elsewhere=fs.PROJECT)
    return True


def keep_schema(manifest: Path) -> None:
    """Write the schema where the first line of a manifest names it and it is missing, as in a fresh clone, or another
    llmbuild's.  A directory that cannot be written costs an editor its help, and no more."""
    with contextlib.suppress(OSError, StoreError):
        with manifest.open("rb") as file:
            first = file.readline(len(DIRECTIVE) + 2)
        if first.rstrip() == DIRECTIVE.encode():
            write_schema(manifest.parent)


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            said = parse_json(file.read(_MOST))
        return isinstance(said, dict) and said.get("$comment") == f"made by llmbuild {__version__}"
    except (OSError, ValueError):
        return False
