"""`llmbuild schema`: the JSON schema of the manifest, for editors that complete and check TOML."""

from __future__ import annotations

import argparse
import json

from llmbuild.cli.common import path_argument, print_json
from llmbuild.errors import ExitCode

HELP = "print the JSON schema of the manifest"
EXAMPLE = """llmbuild schema --output schema.json
  # then, as the manifest's first line:  #:schema ./schema.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=path_argument,
        metavar="FILE",
        help="write it there (`llmbuild init` writes .llmbuild/schema.json, and names it in the manifest's first line)",
    )
    parser.add_argument("--json", action="store_true", help="accepted everywhere; a schema is always JSON")


def run(args: argparse.Namespace) -> int:
    from llmbuild.manifest.json_schema import json_schema

    if args.output is None:
        print_json(json_schema())
        return ExitCode.OK
    from llmbuild.engine import fs
    from llmbuild.engine.files import write_atomic
    from llmbuild.workspace.replacing import SCHEMA, require_replaceable

    require_replaceable(args.output, SCHEMA)
    write_atomic(args.output, (json.dumps(json_schema(), indent=2) + "\n").encode(), elsewhere=fs.PROJECT)
    return ExitCode.OK
