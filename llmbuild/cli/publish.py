"""`llmbuild publish`: put what is built into a repository of a hub or of an OCI registry."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from llmbuild.canonical import Json
from llmbuild.cli.common import add_file, open_workspace, print_json
from llmbuild.errors import ExitCode

if TYPE_CHECKING:
    from llmbuild.workspace.publishing import Published

HELP = "publish what is built at a hub or in an OCI registry"
EXAMPLE = """llmbuild publish --dry-run   # what every [publish] table would change
  llmbuild publish hub         # the table [publish.hub]
  llmbuild publish 'hf:org/{model}-{quantization}-MLC' -m smollm2 --private
  llmbuild publish oci:ghcr.io/org/smollm2:q4f32_1 -m smollm2 -q q4f32_1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "destinations",
        nargs="*",
        metavar="WHERE",
        help="the name of a [publish] table, hf:org/name, or oci:registry/repository:tag, with {model} and {quantization} "
        "in it; default: every table",
    )
    add_file(parser)
    parser.add_argument("-m", "--model", action="append", default=[], help="only this model (may be repeated)")
    parser.add_argument("-q", "--quantization", action="append", default=[], help="only this quantization")
    parser.add_argument("-p", "--platform", action="append", default=[], help="only libraries of this platform")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only show what would change; nothing is sent")
    visibility = parser.add_mutually_exclusive_group()
    visibility.add_argument(
        "--private", action="store_const", const=True, help="a new repository of a hub is private", default=None
    )
    visibility.add_argument("--public", action="store_const", const=False, dest="private", help="… is public")
    parser.add_argument("--revision", metavar="BRANCH", help="the branch of a repository of a hub (default: main)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a destination instead of text")


def run(args: argparse.Namespace) -> int:
    """Publish; the reference of each result is printed, which never means anything else."""
    from llmbuild.publishing.kind import Difference
    from llmbuild.report.publish_text import difference_text
    from llmbuild.report.publish_view import SendingView
    from llmbuild.report.style import style_for
    from llmbuild.workspace.publishing import Watcher

    view = SendingView(sys.stderr)

    class Shown(Watcher):
        def difference(self, name: str, difference: Difference) -> None:
            if not args.json:
                print(difference_text(name, difference, style_for(sys.stdout)), flush=True)
            if not args.dry_run and not difference.empty:
                view.begin(name, difference.size)

        def progress(self, name: str, done: int, total: int) -> None:
            view.progress(name, done, total)

        def published(self, done: Published) -> None:
            view.end(done.name)
            if args.json:
                print_json(_record(done), indent=None)
            elif not args.dry_run:
                print(f"published {done.reference}", flush=True)

    try:
        with open_workspace(args) as workspace:
            workspace.publish(
                *args.destinations,
                private=args.private,
                revision=args.revision,
                dry_run=args.dry_run,
                watcher=Shown(),
            )
    finally:
        view.close()
    return ExitCode.OK


def _record(done: Published) -> Json:
    found = done.difference
    return {
        "destination": done.name,
        "reference": done.reference,
        "new": list(found.new),
        "changed": list(found.changed),
        "removed": list(found.removed),
        "same": list(found.same),
        "bytes": found.size,
    }
