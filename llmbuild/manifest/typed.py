"""What a person types for a checkpoint: a repository's name, the address of its page, a directory that has one inside."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path

from llmbuild.errors import UsageError, did_you_mean
from llmbuild.urls import shown

_PAGE = re.compile(r"(https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([^?#]*)", re.IGNORECASE)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(/[\w./-]+\.gguf)?(@[\w./-]+)?", re.ASCII)
_OTHER_THINGS = ("datasets", "spaces", "collections", "docs", "papers")
_OF_REVISION = ("tree", "commit", "commits", "blob", "blame", "resolve", "raw")
"""What the address of a page of one revision has after the repository's name."""
_SKIPPED = ("dist", "node_modules", "targets", "architectures")
_MOST = 2000
"""Entries of directories that are looked at: a home directory has more than anyone wants to wait for."""


def as_source(text: str, *, sha256: str | None = None) -> str:
    """The text as a manifest has it: `org/name` and the address of a page of the hub become `hf:org/name`.

    A file's address with a SHA-256 stays one.  Raises UsageError for a page that shows no model, and for a path below a directory
    that is here, where nothing is.
    """
    if (page := _PAGE.match(text)) is not None:
        parts = [urllib.parse.unquote(part) for part in page[2].split("/") if part]
        return text if page[1] and sha256 is not None else _of_page(text, parts)
    if _REPOSITORY.fullmatch(text) is None:
        return text
    parent, _, name = text.partition("/")
    if not Path(parent).is_dir():
        return f"hf:{text}"
    raise UsageError(
        "there is no such file or directory",
        where=text,
        why=did_you_mean(name, [entry.name for entry in Path(parent).iterdir()]),
        fix=f"name one that is there, or hf:{text} for the hub's",
    )


def hub_form(text: str) -> str | None:
    """How a manifest names the repository that a text is the name or the page of; None where it is neither."""
    page = _PAGE.match(text)
    if page is None and _REPOSITORY.fullmatch(text) is None:
        return None
    try:
        return f"hf:{text}" if page is None else as_source(text)
    except UsageError:
        return None


def _of_page(text: str, parts: list[str]) -> str:
    """The source of a page: org/name, org/name/tree/REVISION, org/name/commit/COMMIT, org/name/blob/REVISION/FILE."""
    fix = "give the page of a model, https://huggingface.co/org/name, or hf:org/name"
    if len(parts) < 2 or parts[0] in _OTHER_THINGS:
        raise UsageError("this is not the page of a model", where=shown(text), fix=fix)
    repository, rest = "/".join(parts[:2]), parts[2:]
    if not rest or rest[0] not in _OF_REVISION or len(rest) < 2:
        return f"hf:{repository}"
    # A pull request's revision is the only one that has slashes in an address.
    count = 3 if rest[1:3] == ["refs", "pr"] else 1
    revision, file = "/".join(rest[1 : 1 + count]), "/".join(rest[1 + count :])
    at = "" if revision == "main" else f"@{revision}"
    if rest[0] == "tree" and file:
        raise UsageError(
            "a checkpoint is a whole repository, or one .gguf file of it, and no folder",
            where=shown(text),
            fix=f"give hf:{repository}{at}",
        )
    return f"hf:{repository}/{file}{at}" if file.lower().endswith(".gguf") else f"hf:{repository}{at}"


def checkpoint_in(directory: Path) -> Path:
    """The directory, where it has a configuration; else the only checkpoint in it or in its directories.

    Raises UsageError where there is none, or several.
    """
    if (directory / "config.json").exists():
        return directory
    found = sorted(_checkpoints(directory))
    if len(found) == 1:
        return found[0]
    listed = ", ".join(str(path) for path in found[:6]) + (", …" if len(found) > 6 else "")
    raise UsageError(
        f"there {'are several checkpoints' if found else 'is no checkpoint'} in this directory",
        where=str(directory),
        why=listed or "no config.json, and no .gguf file, is here or in the directories here",
        fix="name one: `llmbuild init PATH`"
        if found
        else "name a directory, a .gguf file, org/name of a hub, or a preset",
    )


def _checkpoints(directory: Path) -> list[Path]:
    found: list[Path] = []
    wanted, looked = [(directory, 0)], 0
    while wanted:
        place, depth = wanted.pop(0)
        try:
            entries = sorted(place.iterdir())
        except OSError:
            # What cannot be read is no proposal.
            continue
        for entry in entries:
            looked += 1
            if looked > _MOST:
                return found
            if entry.name.startswith(".") or entry.name in _SKIPPED or entry.is_symlink():
                continue
            if (entry.suffix.lower() == ".gguf" and entry.is_file()) or (
                entry.is_dir() and (entry / "config.json").is_file()
            ):
                found.append(entry)
            elif entry.is_dir() and depth < 1:
                wanted.append((entry, depth + 1))
    return found
