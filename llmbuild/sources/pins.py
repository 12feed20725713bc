"""Pins: what the lock file records of a source, and whether files match it.

A pin is `{"commit"?, "sha256"?, "integrity"?, "files"?: {name: {"size"?, "sha256"?, "git-sha1"?}}}`.  `commit` is that of a
hub's revision, `sha256` that of the file behind a URL, `integrity` that of the archive of an npm package.  The names of a hub's
files are the repository's; all others are those that the fetch task puts out (a GGUF file is `model.gguf`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbuild.canonical import Digest, known_digest
from llmbuild.sources.select import output_name


def complete(pin: Mapping[str, Any] | None) -> bool:
    """Whether a pin has the SHA-256 and the size of every file."""
    files = pin.get("files") if pin else None
    if not files:
        return False
    return all("sha256" in entry and "size" in entry for entry in files.values())


def promised_files(pin: Mapping[str, Any] | None) -> dict[str, Digest] | None:
    """The SHA-256 of each file that a fetch puts out, by its name there; None when the pin lacks one of them."""
    files = pin.get("files") if pin else None
    known = {output_name(name): known_digest(entry.get("sha256")) for name, entry in (files or {}).items()}
    promised = {name: digest for name, digest in known.items() if digest is not None}
    return promised if files and len(promised) == len(known) else None


def promised_sizes(pin: Mapping[str, Any]) -> dict[str, int]:
    """The size of each file that a fetch puts out, by its name there, where the pin has it."""
    files = pin.get("files") or {}
    return {output_name(name): entry["size"] for name, entry in files.items() if "size" in entry}


def promise_broken(pin: Mapping[str, Any] | None, fetched: Mapping[str, tuple[Digest, int]]) -> str | None:
    """How fetched files differ from a pin, naming both digests; None when they do not."""
    difference = first_difference(pin, fetched)
    if difference is None:
        return None
    name, found, digest = difference
    if digest is None:
        return f"the lock file does not have '{name}'"
    if found is None:
        return f"the lock file has '{name}', which is not there"
    return f"the lock file has the SHA-256 {digest} for '{name}', found {found}"


def first_difference(
    pin: Mapping[str, Any] | None, fetched: Mapping[str, tuple[Digest, int]]
) -> tuple[str, Digest | None, Digest | None] | None:
    """The first file in which fetched files differ from a pin: its name, what was fetched, and what the pin promises.

    None when there is no such file, or the pin does not promise every file.
    """
    promised = promised_files(pin)
    if promised is None:
        return None
    for name, digest in promised.items():
        found = fetched[name][0] if name in fetched else None
        if found != digest:
            return name, found, digest
    extra = sorted(set(fetched) - set(promised))
    return (extra[0], fetched[extra[0]][0], None) if extra else None
