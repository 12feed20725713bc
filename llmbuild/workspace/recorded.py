"""Recorded actions: looking one up by its digest, running it again, and writing its output to a directory."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.canonical import digest_file, known_digest
from llmbuild.engine import fs
from llmbuild.errors import StoreError, UsageError
from llmbuild.printable import either
from llmbuild.sources.advice import fitting

if TYPE_CHECKING:
    from llmbuild.canonical import Digest
    from llmbuild.engine.locks import Owner
    from llmbuild.engine.store import Store
    from llmbuild.engine.trace import Trace
    from llmbuild.engine.tree import Tree
    from llmbuild.sources.copying import Progress

_SHORTEST = 6


def find_action(store: Store, prefix: str) -> Digest:
    """The one recorded action whose digest has this prefix; raises UsageError when none or several match."""
    if len(prefix) < _SHORTEST or any(mark not in "0123456789abcdef" for mark in prefix):
        raise UsageError(f"'{prefix}' is not an action's digest", why=f"that is {_SHORTEST} to 64 hexadecimal digits")
    folder = store.root / "actions" / prefix[:2]
    named = (known_digest(folder.name + path.stem) for path in folder.glob(f"{prefix[2:]}*.json"))
    found = sorted(digest for digest in named if digest is not None)
    if not found:
        raise UsageError(
            f"the cache has no action {prefix}", where=str(store.root), fix="run `llmbuild build`, which records it"
        )
    if len(found) > 1:
        raise UsageError(f"{len(found)} actions begin with {prefix}", fix="give more digits")
    return found[0]


def require_dumps(kind: str, label: str) -> None:
    """Raise UsageError for a kind of task that has no intermediate results to write."""
    from llmbuild.engine.registry import KIND_NAMES, load_kind

    if not load_kind(kind).dumps:
        able = either(name for name in KIND_NAMES if load_kind(name).dumps)
        raise UsageError(f"{label} has nothing to dump", fix=f"name the action of a {able} task, or leave --dump out")


def run_again(
    store: Store,
    digest: Digest,
    label: str,
    progress: Progress,
    wait: Callable[[Owner | None], None],
    dump: Path | None = None,
) -> Trace:
    """Run a recorded action in a worker, whether it has a trace or not, with its output on the terminal.

    Its intermediate results go into the directory `dump`, which is made.  `wait` is called repeatedly while another process has
    the action.  Raises LlmbuildError where the action fails, and StoreError where its result was evicted meanwhile.
    """
    from llmbuild.executors.local import LocalExecutor

    if dump is not None:
        with fs.translate_errors("make the directory", dump, fs.OUTPUT):
            fs.current.mkdir(dump)
    # The working files of a resumable task belong to the process that holds the lock.
    with store.hold(digest, label, poll=wait):
        # In a worker, because the result goes into the cache: the environment must be that of a build.
        failure = LocalExecutor(store, terminal=True, dump=dump).run(digest, progress)
    if failure is not None:
        # An action reads what is in the cache, and knows no source.
        raise dataclasses.replace(failure, fix=fitting(failure.fix, remote=None)).to_error()
    trace = store.traces.get(digest)
    if trace is None:
        raise StoreError("the result of the action is gone again", where=str(store.root), why="the cache was cleaned")
    return trace


def require_free_for(store: Store, digest: Digest, out: Path) -> None:
    """As `require_free`, for the recorded result of an action: nobody should wait for a result that cannot be written to
    the requested place."""
    from llmbuild.engine.cas import MissingBlobError
    from llmbuild.engine.tree import Tree

    known = store.traces.get(digest)
    with contextlib.suppress(MissingBlobError):
        require_free(out, store.cas.get_tree(known.output) if known is not None else Tree(()))


def require_free(out: Path, tree: Tree) -> None:
    """Raise UsageError when one of a tree's files would replace another one in a directory."""
    with fs.translate_errors("look at the output directory", out, fs.OUTPUT):
        taken = [entry.path for entry in tree.files if not _free(out / entry.path, entry.digest)]
    if taken:
        raise UsageError(
            f"{len(taken)} files would be overwritten" if len(taken) > 1 else "a file would be overwritten",
            where=str(out / taken[0]),
            fix="name an empty or a new directory with --out",
        )


def _free(file: Path, digest: Digest) -> bool:
    """Whether writing the content with this digest to the file loses nothing."""
    if not os.path.lexists(file):
        return True
    return file.is_file() and not file.is_symlink() and digest_file(file) == digest
