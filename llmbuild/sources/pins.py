"""Pins: what the lock file holds of a source, when that still applies, and what it becomes once the bytes are here.

A pin is `{"commit"?, "sha256"?, "files"?: {name: {"size"?, "sha256"?, "git-sha1"?}}}`.  `commit` is that of a hub's
revision, `sha256` that of the file behind a URL.  The names of a hub's files are the repository's; all others are those
that the fetch task puts out (a GGUF file is `model.gguf`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from llmbuild.canonical import Digest, Json, known_digest
from llmbuild.sources.select import GGUF_NAME, output_name


class SourceSpec(Protocol):
    """A source of the manifest: its kind and what identifies it."""

    @property
    def kind(self) -> str: ...
    @property
    def spec(self) -> Mapping[str, str]: ...


class Lock(Protocol):
    """The lock file's pins by source."""

    def get(self, key: str) -> Mapping[str, Any] | None: ...

    def put(self, key: str, pin: Mapping[str, Json]) -> None: ...


REMOTE = ("hf", "https", "pypi")
"""Kinds whose bytes come from elsewhere, so that a pin is a promise.  A local file is what it is; its pin is a record."""


def lock_key(source: SourceSpec, source_format: str | None = None) -> str | None:
    """How the lock file names a source: local ones by the path as it is written; None for a preset, which has no bytes."""
    spec = source.spec
    if source.kind == "hf":
        key = f"hf:{spec['repo']}@{spec['revision']}"
    elif source.kind == "pypi":
        key = f"pypi:{spec['name']}=={spec['version']}"
    elif source.kind == "https":
        key = spec["url"]
    elif source.kind in ("path", "gguf"):
        return f"{source.kind}:{spec['path']}" + (f"#{source_format}" if source_format else "")
    else:
        return None
    inside = f"/{spec['path']}" if "path" in spec else ""
    return key + inside + (f"#{source_format}" if source_format else "")


def applies(source: SourceSpec, pin: Mapping[str, Any]) -> bool:
    """Whether a pin is of the bytes that the manifest means now: it may promise another SHA-256 than it did."""
    promised = source.spec.get("sha256")
    if promised is None:
        return True
    if source.kind == "https":
        return pin.get("sha256") == promised
    digests = [entry.get("sha256") for entry in pin.get("files", {}).values()]
    return len(digests) != 1 or digests[0] == promised


def complete(pin: Mapping[str, Any] | None) -> bool:
    """Whether a pin has the SHA-256 and the size of every file."""
    files = pin.get("files") if pin else None
    if not files:
        return False
    return all("sha256" in entry and "size" in entry for entry in files.values())


def promised_files(pin: Mapping[str, Any] | None) -> dict[str, Digest] | None:
    """The SHA-256 of each file that a fetch puts out, by its name there; None when one of them is not known."""
    files = pin.get("files") if pin else None
    known = {output_name(name): known_digest(entry.get("sha256")) for name, entry in (files or {}).items()}
    promised = {name: digest for name, digest in known.items() if digest is not None}
    return promised if files and len(promised) == len(known) else None


def promised_sizes(pin: Mapping[str, Any]) -> dict[str, int]:
    """The size of each file that a fetch puts out, by its name there, where the pin has it."""
    return {output_name(name): entry["size"] for name, entry in pin["files"].items() if "size" in entry}


def required_pin(source: SourceSpec, params: Mapping[str, Any], pin: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What a lock has to say of an observed source: what is known without fetching, over what it says already."""
    if source.kind in ("path", "gguf"):
        return {"files": {name: {"sha256": digest} for name, digest in params["files"].items()}}
    if source.kind == "https":
        return {**(pin or {}), "sha256": source.spec["sha256"]}
    if source.kind == "pypi" and pin is not None and not applies(source, pin):
        name = next(iter(pin["files"]))
        return {"files": {name: {"sha256": source.spec["sha256"]}}}
    return pin or {}


def fetched_pin(
    source: SourceSpec,
    params: Mapping[str, Any],
    pin: Mapping[str, Any] | None,
    fetched: Mapping[str, tuple[Digest, int]],
) -> Mapping[str, Json]:
    """The pin of a source whose files (name in the output to SHA-256 and size) are here."""
    known: dict[str, Json] = {name: {"sha256": digest, "size": size} for name, (digest, size) in fetched.items()}
    if source.kind == "https":
        return {"sha256": source.spec["sha256"], "files": known}
    if source.kind != "hf":
        return {"files": known}
    commit: Json = params["source"]["commit"]
    before = pin.get("files", {}) if pin is not None and pin.get("commit") == commit else {}
    if not before:
        return {"commit": commit, "files": known}
    files: dict[str, Json] = {}
    for name, entry in before.items():
        found = known.get(output_name(name))
        files[name] = {**entry, **found} if isinstance(found, dict) else entry
    return {"commit": commit, "files": files}


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


def single_file(source: Mapping[str, Any]) -> dict[str, Digest] | None:
    """The one file that a source's identity promises by itself: the GGUF file behind a URL, or in a wheel."""
    sha256 = known_digest(source.get("sha256"))
    if sha256 is None:
        return None
    gguf = source.get("form") == "gguf" or (source["kind"] == "pypi" and source["path"].lower().endswith(".gguf"))
    return {GGUF_NAME: sha256} if gguf else None
