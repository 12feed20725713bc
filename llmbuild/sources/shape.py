"""The shape of pins, and of a fetch's params and hints: checked wherever they come out of a file.

A place is the keys that lead to a value, such as ("sources", "hf:org/name@main", "commit").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llmbuild.errors import did_you_mean
from llmbuild.sources.kinds import known_kind
from llmbuild.sources.select import MOST_SIZE, check_relative

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
INTEGRITY = re.compile(r"sha512-[A-Za-z0-9+/]{86}==")
"""A SHA-512 as Subresource Integrity writes it (https://www.w3.org/TR/sri-2/)."""
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")


class ShapeError(ValueError):
    """What is wrong with a value, its place, and why."""

    def __init__(self, what: str, place: tuple[str, ...], why: str | None = None) -> None:
        super().__init__(f"{'.'.join(place)}: {what}")
        self.what, self.place, self.why = what, place, why


def checked_pin(pin: Mapping[str, Any], place: tuple[str, ...]) -> Mapping[str, Any]:
    """A pin whose parts have the right form: a wrong one must not be taken for a promise."""
    check_keys(pin, ("commit", "sha256", "integrity", "files"), place)
    for part, pattern, digits in (("commit", _COMMIT, 40), ("sha256", _SHA256, 64)):
        if part in pin and not _matches(pattern, pin[part]):
            raise ShapeError(f"must be {digits} lower-case hexadecimal digits", (*place, part))
    if "integrity" in pin and not _matches(INTEGRITY, pin["integrity"]):
        raise ShapeError("must be 'sha512-' and 88 characters of Base64", (*place, "integrity"))
    kind = known_kind(place[-1].partition(":")[0])
    for part in () if kind is None else kind.pin_keys:
        if part not in pin:
            raise ShapeError(f"has no {part}", place)
    if "files" in pin:
        check_files(pin["files"], (*place, "files"))
        if not pin["files"]:
            raise ShapeError("is empty", (*place, "files"))
    return pin


def check_files(files: Any, place: tuple[str, ...]) -> None:
    """Raise ShapeError when a value is not the files of a pin: names with sizes and digests."""
    for name, value in table_at(files, place).items():
        here = name_at(name, place)
        _check_entry(table_at(value, here), here)


def name_at(name: Any, place: tuple[str, ...]) -> tuple[str, ...]:
    """The place of a file with this name, which must be one below a directory."""
    here = (*place, text_at(name, place))
    try:
        check_relative(name)
    except ValueError as error:
        raise ShapeError(f"the name {error}", here) from error
    return here


def _check_entry(entry: Mapping[str, Any], place: tuple[str, ...]) -> None:
    check_keys(entry, ("size", "sha256", "git-sha1"), place)
    size = entry.get("size", 0)
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MOST_SIZE:
        raise ShapeError("must be a number of bytes", (*place, "size"))
    right = {"sha256": _SHA256, "git-sha1": _COMMIT}
    digests = [name for name in right if name in entry]
    if not digests or any(not _matches(right[name], entry[name]) for name in digests):
        raise ShapeError("must have a sha256 or a git-sha1 in lower-case hexadecimal digits", place)


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def text_at(value: Any, place: tuple[str, ...]) -> str:
    if not isinstance(value, str):
        raise ShapeError("must be a string", place)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ShapeError("must be text", place, "it holds bytes that are not UTF-8") from None
    return value


def table_at(value: Any, place: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ShapeError("must be a table", place)
    return value


def check_keys(table: Mapping[str, Any], known: tuple[str, ...], place: tuple[str, ...]) -> None:
    for name in table:
        if name not in known:
            raise ShapeError("is not a key of the lock file", (*place, name), did_you_mean(name, known))


def check_fetch(params: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Raise ShapeError when params and hints are not those of a fetch: a record may come from another machine."""
    source = table_at(params.get("source"), ("source",))
    kind = known_kind(text_at(source.get("kind"), ("source", "kind")))
    if kind is None:
        raise ShapeError("is not the kind of a source", ("source", "kind"))
    for name in (*kind.identity_keys, *(name for name in ("path", "sha256", "format") if name in source)):
        text_at(source.get(name), ("source", name))
    for name, pattern in (("commit", _COMMIT), ("sha256", _SHA256), ("name", _WORD), ("version", _WORD)):
        if name in source and not _matches(pattern, source[name]):
            raise ShapeError("is of another form", ("source", name))
    files = table_at(params.get("files"), ("files",))
    for name, digest in files.items():
        place = name_at(name, ("files",))
        if not _matches(_SHA256, digest):
            raise ShapeError("is not a digest", place)
    for name in dict.fromkeys(("path", "url", "partial", "have", "manifest", "unread", *kind.hint_keys)):
        if name in hints or name in kind.hint_keys:
            text_at(hints.get(name), ("hints", name))
    check_files(hints.get("files", {}), ("hints", "files"))
    kind.check(params, hints)
