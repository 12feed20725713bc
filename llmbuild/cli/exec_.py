"""`llmbuild exec DIGEST`: run one recorded action again, in a worker of its own and with its output on the terminal."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from llmbuild.cli.common import add_store, path_argument
from llmbuild.errors import ExitCode
from llmbuild.workspace.recorded import find_action, require_dumps, require_free, require_free_for, run_again
from llmbuild.workspace.trust import require_asked

if TYPE_CHECKING:
    from llmbuild.engine.locks import Owner

HELP = "run one action by its digest, to reproduce a failure"
EXAMPLE = "llmbuild exec 3f9c02d417aa81c5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "digest", help="the action's digest, or enough of its beginning (a failed task's message has it)"
    )
    add_store(parser)
    parser.add_argument("--trust", action="store_true", help="also where no project here asked for it, or is trusted")
    parser.add_argument(
        "--dump",
        type=path_argument,
        metavar="DIR",
        help="also write intermediate results there: the module at each stage of a lower task, as mlc_llm's --debug-dump does",
    )
    parser.add_argument("-o", "--out", type=path_argument, help="also put the output's files into this directory")


def run(args: argparse.Namespace) -> int:
    """Run the action, whether it has a trace or not, and print its output tree."""
    from llmbuild.engine.store import Store
    from llmbuild.report.units import amount, seconds, size

    store = Store(args.cache_dir)
    digest = find_action(store, args.digest)
    record = store.get_action(digest)
    require_asked(record, args.trust)
    if args.dump is not None:
        require_dumps(record.action.kind, record.label)
    if args.out is not None:
        require_free_for(store, digest, args.out)
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

    try:
        trace = run_again(store, digest, record.label, progress, wait, args.dump and args.dump.absolute())
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr)
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
