"""The lock file: the commit that a revision resolved to, and the digest of every file, so that all builds use the same bytes.

    version = 1

    [sources."hf:org/name@main"]
    commit = "…40 hexadecimal digits…"

    [sources."hf:org/name@main".files]
    "config.json" = { git-sha1 = "…", sha256 = "…", size = 651 }
    "model.safetensors" = { sha256 = "…", size = 269060552 }

    [sources."path:checkpoint".files]
    "model.safetensors" = { sha256 = "…", size = 269060552 }

    [toolchain]
    apache-tvm = "0.27.0.post1+sha256.…"
    python = "3.12.4"

Written by `llmbuild lock` and by a build that resolves a source for the first time; sorted, so that it merges well.  Writer and
reader apply the same check, so that every written lock can be read.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbuild.canonical import Json
from llmbuild.errors import StoreError, UsageError
from llmbuild.sources.shape import ShapeError, check_keys, checked_pin, table_at, text_at

LOCK_FILE = "llmbuild.lock"
VERSION = 1

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_FIX = "restore the file from version control, or delete it and run `llmbuild lock`"
_HEADER = "# Made by llmbuild: commit this file.  `llmbuild lock --upgrade` renews it.\n"


class Lock:
    """The pins by source and the toolchain's versions.  `changed` is true where the file must be written."""

    def __init__(self, sources: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.sources: dict[str, Mapping[str, Any]] = dict(sources or {})
        self.toolchain: dict[str, str] = {}
        self.changed = False

    def get(self, key: str) -> Mapping[str, Any] | None:
        """A source's pin (see sources/pins.py), or None."""
        return self.sources.get(key)

    def put(self, key: str, pin: Mapping[str, Json]) -> None:
        """Pin a source."""
        if self.sources.get(key) != pin:
            self.sources[key] = pin
            self.changed = True

    def forget(self, key: str) -> None:
        """Drop a pin, so that it is resolved anew."""
        if self.sources.pop(key, None) is not None:
            self.changed = True

    def record_tool(self, name: str, identity: str) -> None:
        """Record a tool's version."""
        if self.toolchain.get(name) != identity:
            self.toolchain[name] = identity
            self.changed = True

    def copy(self) -> Lock:
        """An independent lock with the same content, which counts as unchanged."""
        lock = Lock(self.sources)
        lock.toolchain = dict(self.toolchain)
        return lock

    @staticmethod
    def from_json(sources: object, toolchain: object) -> Lock:
        """The lock of two JSON values.  Raises ValueError when they are not valid content of a lock file."""
        return _checked({"version": VERSION, "sources": sources, "toolchain": toolchain})

    def to_toml(self) -> str:
        """The file's text: the same for equal locks."""
        lines = [_HEADER, f"version = {VERSION}\n"]
        for key, pin in sorted(self.sources.items()):
            own = [f"{name} = {_quoted(pin[name])}\n" for name in ("commit", "sha256", "integrity") if name in pin]
            if own or not pin.get("files"):
                lines += [f"\n[sources.{_quoted(key)}]\n", *own]
            if pin.get("files"):
                lines.append(f"\n[sources.{_quoted(key)}.files]\n")
                lines.extend(f"{_key(name)} = {_inline(entry)}\n" for name, entry in sorted(pin["files"].items()))
        if self.toolchain:
            lines.append("\n[toolchain]\n")
            lines.extend(f"{_key(name)} = {_quoted(value)}\n" for name, value in sorted(self.toolchain.items()))
        return "".join(lines)


def read_lock(path: Path) -> Lock:
    """The lock in a file, or an empty one when there is no file.  Raises UsageError when it is not a lock file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Lock()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the lock file cannot be read", where=path.name, why=str(error)) from error
    return parse_lock(path, text)


def parse_lock(path: Path, text: str) -> Lock:
    """The lock in a file's text; `path` is for messages.  Raises UsageError.

    Its `changed` is true where the text contains the query of a URL, as llmbuild once wrote: then it is written again.
    """
    from llmbuild.tomlfile import parse_toml

    try:
        file = parse_toml(text, path.name)
    except UsageError as error:
        raise UsageError(error.what, where=error.where, why=error.why, fix=_FIX) from error
    try:
        return _checked(file.data)
    except ShapeError as error:
        raise UsageError(error.what, where=file.where(error.place), why=error.why, fix=_FIX) from error


def write_lock(path: Path, lock: Lock) -> None:
    """Write the lock atomically, and wait until it is on disk.

    Raises StoreError, also for a lock that could not be read again.
    """
    import tempfile

    try:
        Lock.from_json(lock.sources, lock.toolchain)
        text = lock.to_toml()
        # The reader applies further limits of its own.
        parse_lock(path, text)
    except (ShapeError, UsageError) as error:
        why = error.what if isinstance(error, UsageError) else str(error)
        raise StoreError(
            "the lock file is not written",
            where=str(path),
            why=f"no lock file can hold this: {why}",
            fix="check the names of the source's files; the lock file stays as it was",
        ) from error
    temporary = None
    try:
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
        raise StoreError(
            "the lock file cannot be written", where=str(path), why=error.strerror or str(error)
        ) from error
    lock.changed = False


def _key(text: str) -> str:
    """A TOML key, bare where that is allowed."""
    return text if _BARE.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are among TOML's, except for DEL and the characters above the basic plane."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline(entry: Mapping[str, Any]) -> str:
    parts = (f"{key} = {_quoted(value) if isinstance(value, str) else value}" for key, value in sorted(entry.items()))
    return "{ " + ", ".join(parts) + " }"


def _checked(content: Mapping[str, Any]) -> Lock:
    """The lock that a file's content means.  Raises ShapeError."""
    if content.get("version") != VERSION:
        raise ShapeError(
            f"has version {content.get('version')!r:.40}", ("version",), f"this llmbuild reads version {VERSION}"
        )
    check_keys(content, ("version", "sources", "toolchain"), ())
    lock = Lock()
    for name, value in table_at(content.get("sources", {}), ("sources",)).items():
        place = ("sources", text_at(name, ("sources",)))
        pin = checked_pin(table_at(value, place), place)
        key = _kept(name)
        lock.changed |= key != name
        lock.sources[key] = pin
    for name, value in table_at(content.get("toolchain", {}), ("toolchain",)).items():
        lock.toolchain[text_at(name, ("toolchain",))] = text_at(value, ("toolchain", name))
    return lock


def _kept(key: str) -> str:
    """A source's key without the query of a URL, which may contain a signature."""
    if "?" not in key or not key.startswith(("https://", "http://")):
        return key
    from llmbuild import urls

    url, mark, form = key.partition("#")
    try:
        return urls.kept(url) + mark + form
    except ValueError as error:
        raise ShapeError("is not a URL", ("sources", key), str(error)) from error
