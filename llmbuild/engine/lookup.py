"""Whether an action's result is there: its trace, its output tree and every blob of it.

For a file that was left where its owner has it the record of that stands for the blob.  Whoever needs the bytes verifies that
they still are what they were; most builds do not need them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from llmbuild.canonical import Digest
from llmbuild.engine.cas import MissingBlobError
from llmbuild.engine.store import Store
from llmbuild.engine.trace import Trace
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.errors import StoreError


@dataclass(frozen=True, slots=True)
class Cached:
    """A result that can be used as it is; `away` are the files whose bytes are not in the store."""

    trace: Trace
    tree: Tree
    away: tuple[FileEntry, ...] = ()


class Miss(Enum):
    """Why a result cannot be used."""

    NEVER = "never built"
    EVICTED = "output missing or corrupt"


def lookup(store: Store, action: Digest) -> Cached | Miss:
    """The action's result if all of it is in the store and right, else why not."""
    trace = store.traces.get(action)
    if trace is None:
        return Miss.NEVER
    try:
        tree = store.cas.get_tree(trace.output)
    except (MissingBlobError, StoreError):
        return Miss.EVICTED
    away = tuple(store.cas.missing(tree))
    if not all(store.cas.places.promises(file.digest, file.size) for file in away):
        return Miss.EVICTED
    return Cached(trace, tree, away)


def cached(store: Store, action: Digest) -> Cached | None:
    """The action's result if all of it is in the store and right; it counts as used now."""
    # First the mark and then the look: a collection that goes on beside this sees the mark or has taken the trace.
    if not store.traces.mark_used(action):
        return None
    found = lookup(store, action)
    return found if isinstance(found, Cached) else None
