"""`llmbuild cache`: manage the store: show its size, evict, verify, export and import."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from llmbuild.cli.common import add_file, add_store, open_workspace, path_argument, print_json
from llmbuild.errors import ExitCode

if TYPE_CHECKING:
    from llmbuild.canonical import Json
    from llmbuild.engine.kind import Progress

HELP = "look after the cache: stats, gc, verify, export, import"
EXAMPLE = "llmbuild cache gc --max-size 50GB"

_PROGRESS_AFTER_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, summary: str, example: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.add_argument("--json", action="store_true", help="print one JSON object")
        return added

    add_store(command("stats", "tell what is in the cache", "llmbuild cache stats"))
    gc = command(
        "gc", "remove what is unused, then the least recently used results", "llmbuild cache gc --max-size 50GB"
    )
    add_store(gc)
    gc.add_argument("--max-size", metavar="SIZE", help="10GB, 500MB (default: the max-size setting, else no limit)")
    gc.add_argument(
        "--max-age", metavar="AGE", help="remove results not used for so long: 30d, 12h (default: no limit)"
    )
    gc.add_argument(
        "--keep", metavar="AGE", default="14d", help="prefer results of projects built within this time (default: 14d)"
    )
    gc.add_argument(
        "--grace", metavar="AGE", default="10m", help="never touch what was used within this time (default: 10m)"
    )
    gc.add_argument("-n", "--dry-run", action="store_true", help="only tell what would go")
    verify = command("verify", "hash every blob and check every trace", "llmbuild cache verify --repair")
    add_store(verify)
    verify.add_argument("--repair", action="store_true", help="remove what is wrong; builds make it again")
    export = command(
        "export", "write results and all they consist of to one archive", "llmbuild cache export cache.tar -m smollm2"
    )
    export.add_argument("archive", type=path_argument, metavar="FILE", help="the tar archive to write")
    export.add_argument("tasks", nargs="*", metavar="TASK", help="tasks, patterns or kinds, with all they need")
    add_file(export)
    export.add_argument("-m", "--model", action="append", default=[], help="only this model (may be repeated)")
    export.add_argument("-q", "--quantization", action="append", default=[], help="only this quantization")
    export.add_argument("-p", "--platform", action="append", default=[], help="only this platform")
    export.add_argument("--all", action="store_true", help="everything in the cache, without a manifest")
    take = command("import", "take such an archive into the cache", "llmbuild cache import cache.tar")
    add_store(take)
    take.add_argument("archive", type=path_argument, metavar="FILE", help="an archive that `cache export` wrote")


def run(args: argparse.Namespace) -> int:
    commands = {"stats": _stats, "gc": _gc, "verify": _verify, "export": _export, "import": _import}
    return commands[args.command](args)


def _stats(args: argparse.Namespace) -> int:
    from llmbuild.engine.store import Store
    from llmbuild.engine.upkeep.survey import survey
    from llmbuild.report.cache_text import stats_json, stats_text
    from llmbuild.report.style import style_for
    from llmbuild.workspace.living import living

    store = Store(args.cache_dir)
    found, uses, root = survey(store, partial(living, store.seal)), store.uses.total(), str(store.root)
    _print(args, stats_json(root, found, uses), stats_text(root, found, time.time(), style_for(sys.stdout), uses))
    return ExitCode.OK


def _gc(args: argparse.Namespace) -> int:
    from llmbuild.engine.limits import parse_age, parse_size
    from llmbuild.engine.settings import read_settings
    from llmbuild.engine.store import Store
    from llmbuild.engine.upkeep.gc import Retention, collect
    from llmbuild.report.cache_text import collected_json, collected_text
    from llmbuild.report.style import style_for
    from llmbuild.workspace.living import living

    policy = Retention(
        max_size=parse_size(args.max_size) if args.max_size is not None else read_settings().max_size,
        max_age=parse_age(args.max_age) if args.max_age is not None else None,
        keep=parse_age(args.keep),
        grace=parse_age(args.grace),
    )
    store = Store(args.cache_dir)
    try:
        done = collect(store, policy, partial(living, store.seal), dry_run=args.dry_run)
    finally:
        store.close()
    _print(args, collected_json(done), collected_text(done, style_for(sys.stdout)))
    return ExitCode.OK


def _verify(args: argparse.Namespace) -> int:
    from llmbuild.engine.store import Store
    from llmbuild.engine.upkeep.audit import audit
    from llmbuild.report.cache_text import audit_json, audit_text
    from llmbuild.report.style import style_for

    store = Store(args.cache_dir)
    try:
        with _progress("verify") as progress:
            result = audit(store, repair=args.repair, progress=progress)
    finally:
        store.close()
    _print(args, audit_json(result), audit_text(result, style_for(sys.stdout)))
    return ExitCode.VERIFY if result.findings and not result.repaired else ExitCode.OK


def _export(args: argparse.Namespace) -> int:
    from llmbuild.engine.store import Store
    from llmbuild.engine.upkeep.archive import export
    from llmbuild.report.cache_text import packed_json, packed_text
    from llmbuild.workspace.replacing import ARCHIVE, require_file, require_replaceable

    require_file(args.archive)
    require_replaceable(args.archive, ARCHIVE)
    unbuilt: list[str] = []
    labels: dict[str, str] = {}
    if args.all:
        store = Store(args.cache_dir)
        actions = store.traces.names()
    else:
        workspace = open_workspace(args)
        store = workspace.store
        verdicts = workspace.look(*args.tasks, partial=True).plan().verdicts
        actions = [verdict.action.digest for verdict in verdicts if verdict.action is not None]
        labels = {verdict.action.digest: verdict.task.label for verdict in verdicts if verdict.action is not None}
        unbuilt = [verdict.task.label for verdict in verdicts if verdict.unbuilt]
    try:
        with _progress("export") as progress:
            packed = export(store, actions, args.archive, progress=progress)
    finally:
        store.close()
    # A built task that is left out lacks the bytes of a file that was left where its owner has it.
    away = [label for action in packed.missing if (label := labels.get(action)) is not None and label not in unbuilt]
    text = packed_text(packed, str(args.archive), imported=False, unbuilt=unbuilt, away=away)
    _print(args, packed_json(packed, [*unbuilt, *away]), text)
    return ExitCode.OK


def _import(args: argparse.Namespace) -> int:
    from llmbuild.engine.store import Store
    from llmbuild.engine.upkeep.archive import import_archive
    from llmbuild.report.cache_text import packed_json, packed_text

    store = Store(args.cache_dir)
    try:
        with _progress("import") as progress:
            packed = import_archive(store, args.archive, progress=progress)
    finally:
        store.close()
    _print(args, packed_json(packed), packed_text(packed, str(args.archive), imported=True))
    return ExitCode.OK


def _print(args: argparse.Namespace, value: dict[str, Json], text: str) -> None:
    if args.json:
        print_json(value)
    else:
        print(text)


@contextmanager
def _progress(doing: str) -> Iterator[Progress]:
    """A line on the terminal, for what takes longer than a second."""
    from llmbuild.report.units import amount

    started = time.monotonic()
    shown = ""

    def progress(done: int, total: int, unit: str = "") -> None:
        nonlocal shown
        if time.monotonic() - started < _PROGRESS_AFTER_S or not sys.stderr.isatty():
            return
        text = f"{doing} {amount(done, total, unit)}"
        if text != shown:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            shown = text

    try:
        yield progress
    finally:
        if shown:
            with contextlib.suppress(OSError):
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
