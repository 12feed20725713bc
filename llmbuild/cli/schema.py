"""`llmbuild schema`: the JSON schema of the manifest, for editors that complete and check TOML."""

from __future__ import annotations

import argparse

from llmbuild.cli.common import print_json
from llmbuild.errors import ExitCode

HELP = "print the JSON schema of the manifest"
EXAMPLE = "llmbuild schema > buildfile.schema.json    # then: #:schema ./buildfile.schema.json in the first line"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="accepted everywhere; a schema is always JSON")


def run(args: argparse.Namespace) -> int:
    from llmbuild.manifest.json_schema import json_schema

    del args
    print_json(json_schema())
    return ExitCode.OK
