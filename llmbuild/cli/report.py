"""`llmbuild report`: what the last build did, from its events."""

from __future__ import annotations

import argparse
import sys

from llmbuild.cli.common import add_manifest, path_argument, print_json
from llmbuild.errors import ExitCode
from llmbuild.workspace.place import find_manifest

HELP = "tell what the last build did: causes, critical path, memory"
EXAMPLE = "llmbuild report --html build.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_manifest(parser)
    parser.add_argument(
        "--events", type=path_argument, metavar="FILE", help="a file of events instead of the last build's"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    form.add_argument("--markdown", action="store_true", help="print the summary of a CI job")
    parser.add_argument(
        "--html", type=path_argument, metavar="FILE", help="write one page with a timeline and the graph"
    )


def run(args: argparse.Namespace) -> int:
    """Print the report, or write the page; exit code 0 whether the build succeeded or not."""
    from llmbuild.workspace.reporting import last_report, report_of

    if args.html is not None:
        from llmbuild.workspace.replacing import PAGE, require_replaceable

        require_replaceable(args.html, PAGE)
    if args.events is None:
        manifest = find_manifest(args.file).absolute()
        report = last_report(manifest.parent, manifest.name)
    else:
        report = report_of(args.events)
    if args.html is not None:
        from llmbuild.engine import fs
        from llmbuild.report.build_html import build_html

        try:
            args.html.write_text(build_html(report), encoding="utf-8")
        except OSError as error:
            raise fs.store_error(error, "write the report", args.html, "name another file") from error
    if args.json:
        print_json(report.to_json())
    elif args.markdown:
        from llmbuild.report.build_markdown import build_markdown

        print(build_markdown(report), end="")
    elif args.html is not None:
        print(f"wrote {args.html}")
    else:
        from llmbuild.report.build_text import build_text
        from llmbuild.report.style import style_for

        print(build_text(report, style_for(sys.stdout)))
    return ExitCode.OK
