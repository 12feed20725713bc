"""`llmbuild exec DIGEST`: run one recorded action again, in a worker of its own and with its output on the terminal."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.canonical import digest_file, known_digest
from llmbuild.cli.common import path_argument
from llmbuild.engine import fs
from llmbuild.errors import ExitCode, StoreError, UsageError

if TYPE_CHECKING:
    from llmbuild.canonical import Digest
    from llmbuild.engine.locks import Owner
    from llmbuild.engine.store import Store
    from llmbuild.engine.tree import Tree

HELP = "run one action by its digest, to reproduce a failure"
EXAMPLE = "llmbuild exec 3f9c02d417aa81c5"
_SHORTEST = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "digest", help="the action's digest, or enough of its beginning (a failed task's message has it)"
    )
    parser.add_argument(
        "--cache-dir", type=path_argument, help="the store (default: $LLMBUILD_CACHE or the user's cache)"
    )
    parser.add_argument("-o", "--out", type=path_argument, help="also put the output's files into this directory")


def run(args: argparse.Namespace) -> int:
    """Run the action, whether it has a trace or not, and print its output tree."""
    from llmbuild.engine.cas import MissingBlobError
    from llmbuild.engine.store import Store
    from llmbuild.engine.tree import Tree
    from llmbuild.executors.local import LocalExecutor
    from llmbuild.report.units import amount, seconds, size

    store = Store(args.cache_dir)
    digest = resolve(store, args.digest)
    record = store.get_action(digest)
    if args.out is not None:
        known = store.traces.get(digest)
        with contextlib.suppress(MissingBlobError):
            # Nobody should wait for a result that cannot be put where it is asked for.
            require_free(args.out, store.cas.get_tree(known.output) if known is not None else Tree(()))
    print(f"run    {record.label}", file=sys.stderr)
    shown, waited = "", False

    def progress(done: int, total: int, unit: str = "") -> None:
        nonlocal shown
        text = amount(done, total, unit)
        if sys.stderr.isatty() and text != shown:
            print(f"\r\x1b[K       {text}", end="", file=sys.stderr, flush=True)
            shown = text

    def wait(owner: Owner | None) -> None:
        nonlocal waited
        if not waited:
            waited = True
            who = f"process {owner.pid}" if owner is not None else "another process"
            print(f"wait   {record.label}: {who} is building it", file=sys.stderr)
        time.sleep(0.1)

    # What a resumable task keeps belongs to whoever holds the lock.
    try:
        with store.hold(digest, record.label, poll=wait):
            # In a worker, since what is made goes into the cache: its environment is that of a build's.
            failure = LocalExecutor(store, terminal=True).run(digest, progress)
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr)
    if failure is not None:
        raise failure.to_error()
    trace = store.traces.get(digest)
    if trace is None:
        raise StoreError("the result of the action is gone again", where=str(store.root), why="the cache was cleaned")
    print(f"done   {record.label} in {seconds(trace.wall_s)}, {size(trace.output_size)}", file=sys.stderr)
    tree = store.cas.get_tree(trace.output)
    if args.out is not None:
        require_free(args.out, tree)
    for entry in tree.files:
        print(f"{entry.digest}  {entry.path}")
        if args.out is not None:
            store.cas.link_out(entry.digest, args.out / entry.path, entry.executable)
    store.close()
    return ExitCode.OK


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
    """Whether nothing is lost when the content with this digest is put there."""
    if not os.path.lexists(file):
        return True
    return file.is_file() and not file.is_symlink() and digest_file(file) == digest


def resolve(store: Store, prefix: str) -> Digest:
    """The one recorded action whose digest begins so; raises UsageError when there is none or there are several."""
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
