"""The differences between two locks, as data: the lock file's pins, and the resolved ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from llmbuild.manifest.lock import Lock

TOOLCHAIN = "toolchain"
How: TypeAlias = Literal["added", "removed", "changed", "incomplete"]


@dataclass(frozen=True, slots=True)
class LockDifference:
    """One difference.

    `section` is a source's key or "toolchain"; `item` a file, a tool, or "" for the source itself.  "added" is needed and
    not in the lock, "removed" is in the lock alone, "changed" has `values` (field to old and new), "incomplete" is a source
    whose files have not been hashed yet.  `pin` is the whole pin of a source that is added.
    """

    section: str
    item: str
    how: How
    values: Mapping[str, tuple[Any, Any]]
    pin: Mapping[str, Any] | None = None


def differences(locked: Lock, now: Lock, *, partial: bool = False) -> tuple[LockDifference, ...]:
    """How `now` differs from `locked`, in the order of the file; a `partial` `now` implies nothing about what it lacks."""
    return tuple(_all(locked, now, partial))


def _all(locked: Lock, now: Lock, partial: bool) -> Iterator[LockDifference]:
    for key in sorted({*now.sources, *(() if partial else locked.sources)}):
        old, new = locked.get(key), now.get(key)
        if old is None:
            yield LockDifference(key, "", "added", {}, new)
        elif new is None:
            yield LockDifference(key, "", "removed", {})
        else:
            yield from _pin(key, old, new)
    for name in sorted({*now.toolchain, *(() if partial else locked.toolchain)}):
        before, after = locked.toolchain.get(name), now.toolchain.get(name)
        if before is None:
            yield LockDifference(TOOLCHAIN, name, "added", {"": (None, after)})
        elif after is None:
            yield LockDifference(TOOLCHAIN, name, "removed", {})
        elif before != after:
            yield LockDifference(TOOLCHAIN, name, "changed", {"": (before, after)})


def _pin(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[LockDifference]:
    own = {part: (old.get(part), new[part]) for part in ("commit", "sha256", "integrity") if part in new}
    changed = {part: values for part, values in own.items() if values[0] != values[1]}
    if changed:
        yield LockDifference(key, "", "changed", changed)
    before, after = old.get("files", {}), new.get("files", {})
    if not after:
        yield LockDifference(key, "", "incomplete", {})
        return
    for name in sorted({*before, *after}):
        if name not in before:
            yield LockDifference(key, name, "added", {})
        elif name not in after:
            yield LockDifference(key, name, "removed", {})
        else:
            values = _entry(before[name], after[name])
            if values:
                yield LockDifference(key, name, "changed", values)


def _entry(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Digests and sizes that differ.  A digest that only one side has is additional data, not another file."""
    values = {
        field: (before[field], after[field])
        for field in ("sha256", "git-sha1", "size")
        if field in before and field in after and before[field] != after[field]
    }
    if "sha256" in values:
        values.pop("git-sha1", None)
    return values
