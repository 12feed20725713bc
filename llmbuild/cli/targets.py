"""`llmbuild targets`: the targets there are, and what this machine can do for each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmbuild.canonical import Digest, Json, digest_file
from llmbuild.cli.common import path_argument, print_json
from llmbuild.errors import ExitCode, LlmbuildError, ToolchainError
from llmbuild.targets.files import load_target, target_names
from llmbuild.targets.target import Target
from llmbuild.workspace.machine import Machine
from llmbuild.workspace.toolchain import Toolchain

HELP = "list the targets, and what this machine can do for each"
EXAMPLE = "llmbuild targets x86_64-linux-cpu-native"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="TARGET", help="show these in full (default: list all)")
    parser.add_argument(
        "-f", "--file", type=path_argument, help="the manifest whose targets/ directory is searched first"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON array instead of text")


def run(args: argparse.Namespace) -> int:
    user = user_directory(args.file)
    machine = Machine(Toolchain(_Unremembered()), bytes_count=False)
    found = [examine(load_target(name, user), machine) for name in args.names or target_names(user)]
    if args.json:
        print_json([item.to_json() for item in found])
    elif args.names:
        print("\n\n".join(item.in_full() for item in found))
    else:
        print(_table(found))
    return ExitCode.OK


def user_directory(file: Path | None) -> Path:
    """The targets/ directory beside the manifest, or in the current directory when there is no manifest."""
    from llmbuild.errors import UsageError
    from llmbuild.manifest.load import USER_TARGETS
    from llmbuild.workspace.place import find_manifest

    try:
        return find_manifest(file).absolute().parent / USER_TARGETS
    except UsageError:
        if file is not None:
            raise
        return Path.cwd() / USER_TARGETS


@dataclass(frozen=True, slots=True)
class Examined:
    """A target with what this machine offers: the tool for each artifact, or the error that says how to get it.

    `compiler` is what compiles the device's code, where that is a tool of its own; `general` are the errors that stand in the
    way of every artifact.
    """

    target: Target
    compile_part: Mapping[str, Json] | None
    tools: Mapping[str, str]
    compiler: str | None
    general: tuple[LlmbuildError, ...]
    linking: tuple[LlmbuildError, ...]

    @property
    def missing(self) -> tuple[LlmbuildError, ...]:
        return (*self.general, *self.linking)

    @property
    def ready(self) -> tuple[str, ...]:
        """The artifacts that can be made here."""
        return () if self.general else tuple(self.tools)

    def status(self) -> list[str]:
        """Whether it can be built here, and what to do where it cannot."""
        if not self.missing:
            return ["ready"]
        first = self.missing[0]
        lines = [f"only {', '.join(self.ready)}: {first.what}" if self.ready else f"not here: {first.what}"]
        return [*lines, f"  {first.fix}"] if first.fix else lines

    def to_json(self) -> Mapping[str, Json]:
        target = self.target
        return {
            "name": target.name,
            "description": target.description,
            "files": [str(path) for path in target.files],
            "artifacts": list(target.artifacts),
            "default": target.artifact,
            "compile": self.compile_part,
            "link": target.link_part(),
            "dtypes": [dtype for dtype in target.dtypes if target.can_compute(dtype)],
            "requires": {dtype: list(features) for dtype, features in target.features.items()},
            "system-lib-prefix": target.system_lib_prefix,
            "ready": list(self.ready),
            "tools": self.tools,
            "device-compiler": self.compiler,
            "missing": [{"what": error.what, "why": error.why, "fix": error.fix} for error in self.missing],
        }

    def in_full(self) -> str:
        target = self.target
        lines = [target.name, f"  {target.description}"] if target.description else [target.name]
        lines += [f"  file      {path}" for path in target.files[:1]]
        lines += [f"  extends   {path.stem}" for path in target.files[1:]]
        if self.compile_part is not None:
            lines += [f"  {part:<9} {json.dumps(value)}" for part, value in self.compile_part.items()]
        lines.append(f"  computes  in {', '.join(dtype for dtype in target.dtypes if target.can_compute(dtype))}")
        if self.compiler is not None:
            lines.append(f"  code      by {self.compiler}")
        for dtype, features in target.features.items():
            lines.append(f"  {dtype:<9} needs {', '.join(features)} where it runs")
        if target.system_lib_prefix:
            lines.append(f"  prefix    {target.system_lib_prefix} (of a .tar)")
        for artifact in target.artifacts:
            default = " (default)" if artifact == target.artifact else ""
            tool = self.tools.get(artifact)
            lines.append(
                f"  .{artifact:<8} " + (f"ready, with {tool}" if artifact in self.ready else "not here") + default
            )
        for error in self.missing:
            lines.append(f"  missing   {error.what}")
            lines += [f"            {text}" for text in (error.why, error.fix) if text]
        return "\n".join(lines)


def examine(target: Target, machine: Machine) -> Examined:
    """Look for what a target needs, without building anything."""
    general = list(machine.missing_tools([{"command": tool.command, "install": tool.install} for tool in target.tools]))
    compile_part, compiler = None, None
    try:
        compile_part = target.compile_part()
        lacking = machine.missing_for_device(compile_part)
        general += lacking
        compiler = None if lacking else machine.device_compiler(compile_part)
    except ToolchainError as error:
        general.append(error)
    tools = {}
    linking: list[LlmbuildError] = []
    for artifact in target.artifacts:
        try:
            tools[artifact] = machine.linker(target.link_part(), artifact)
        except LlmbuildError as error:
            if str(error) not in map(str, linking):
                linking.append(error)
    return Examined(target, compile_part, tools, compiler, tuple(general), tuple(linking))


def _table(found: Sequence[Examined]) -> str:
    rows = [(item.target.name, " ".join(item.target.artifacts), item.status()) for item in found]
    rows.insert(0, ("TARGET", "ARTIFACTS", ["ON THIS MACHINE"]))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = []
    for name, kinds, (status, *more) in rows:
        lines.append(f"{name:<{widths[0]}}  {kinds:<{widths[1]}}  {status}")
        lines += [f"{'':<{widths[0]}}  {'':<{widths[1]}}  {text}" for text in more]
    return "\n".join(lines)


class _Unremembered:
    """Digests of files that are computed each time: showing targets opens no store."""

    def digest(self, path: Path) -> Digest:
        return digest_file(path)
