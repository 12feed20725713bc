"""`llmbuild targets`: the targets there are, and what this machine can do for each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.errors import ExitCode, LlmbuildError, ToolchainError
from llmbuild.targets import Target, load_target, target_names

HELP = "list the targets, and what this machine can do for each"
EXAMPLE = "llmbuild targets x86_64-linux-cpu-native"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="TARGET", help="show these in full (default: list all)")
    parser.add_argument("-f", "--file", type=Path, help="the manifest whose targets/ directory is searched first")
    parser.add_argument("--json", action="store_true", help="print a JSON array instead of text")


def run(args: argparse.Namespace) -> int:
    user = user_directory(args.file)
    found = [examine(load_target(name, user)) for name in args.names or target_names(user)]
    if args.json:
        print(json.dumps([item.to_json() for item in found], indent=2, ensure_ascii=False))
    elif args.names:
        print("\n\n".join(item.in_full() for item in found))
    else:
        print(_table(found))
    return ExitCode.OK


def user_directory(file: Path | None) -> Path:
    """The targets/ directory beside the manifest, or in the current directory when there is no manifest."""
    from llmbuild.cli.common import find_manifest
    from llmbuild.errors import UsageError
    from llmbuild.manifest.load import USER_TARGETS

    try:
        return find_manifest(file).absolute().parent / USER_TARGETS
    except UsageError:
        if file is not None:
            raise
        return Path.cwd() / USER_TARGETS


@dataclass(frozen=True, slots=True)
class Examined:
    """A target with what this machine offers: the tool for each artifact, or the error that says how to get it."""

    target: Target
    compile_part: Mapping[str, Json] | None
    tools: Mapping[str, str]
    missing: tuple[LlmbuildError, ...]

    @property
    def ready(self) -> tuple[str, ...]:
        """The artifacts that can be made here."""
        return tuple(self.tools) if self.compile_part is not None else ()

    def status(self) -> str:
        if not self.missing:
            return "ready"
        first = self.missing[0].what
        return f"only {', '.join(self.ready)}: {first}" if self.ready else f"not here: {first}"

    def to_json(self) -> Mapping[str, Json]:
        return {
            "name": self.target.name,
            "description": self.target.description,
            "files": [str(path) for path in self.target.files],
            "artifacts": list(self.target.artifacts),
            "default": self.target.artifact,
            "compile": self.compile_part,
            "link": self.target.link_part(),
            "ready": list(self.ready),
            "tools": self.tools,
            "missing": [{"what": error.what, "why": error.why, "fix": error.fix} for error in self.missing],
        }

    def in_full(self) -> str:
        lines = [self.target.name, f"  {self.target.description}"] if self.target.description else [self.target.name]
        lines += [f"  file      {path}" for path in self.target.files[:1]]
        lines += [f"  extends   {path.stem}" for path in self.target.files[1:]]
        if self.compile_part is not None:
            for part in ("device", "host"):
                lines.append(f"  {part:<9} {json.dumps(self.compile_part[part])}")
        for artifact in self.target.artifacts:
            default = " (default)" if artifact == self.target.artifact else ""
            tool = self.tools.get(artifact)
            lines.append(f"  .{artifact:<8} " + (f"ready, with {tool}" if tool else "not here") + default)
        for error in self.missing:
            lines.append(f"  missing   {error.what}")
            lines += [f"            {text}" for text in (error.why, error.fix) if text]
        return "\n".join(lines)


def examine(target: Target) -> Examined:
    """Look for what a target needs, without building anything."""
    from llmbuild import linkers

    missing: list[LlmbuildError] = [
        ToolchainError(
            f"{tool.command} is not on PATH",
            fix=f"install it: `{tool.install}`" if tool.install else f"install {tool.command}, or put it on PATH",
        )
        for tool in target.missing_tools()
    ]
    compile_part = None
    try:
        compile_part = target.compile_part()
    except ToolchainError as error:
        missing.append(error)
    tools = {}
    for artifact in target.artifacts:
        try:
            tools[artifact] = linkers.identity(target.link_part(), artifact)
        except LlmbuildError as error:
            if str(error) not in map(str, missing):
                missing.append(error)
    return Examined(target, compile_part, {} if target.missing_tools() else tools, tuple(missing))


def _table(found: Sequence[Examined]) -> str:
    rows = [(item.target.name, " ".join(item.target.artifacts), item.status()) for item in found]
    rows.insert(0, ("TARGET", "ARTIFACTS", "ON THIS MACHINE"))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{name:<{widths[0]}}  {kinds:<{widths[1]}}  {status}" for name, kinds, status in rows)
