"""What this machine has for each target: the tool of each artifact, or how to install it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmbuild.canonical import Digest, Json, digest_file
from llmbuild.errors import LlmbuildError, ToolchainError, UsageError
from llmbuild.linkers import OWN
from llmbuild.targets.files import load_target
from llmbuild.targets.names import TargetNames, target_names
from llmbuild.targets.target import Target
from llmbuild.workspace.platform_tools import Machine
from llmbuild.workspace.tool_identities import Toolchain
from llmbuild.workspace.trust import Trust


@dataclass(frozen=True, slots=True)
class Examined:
    """A target with what this machine offers: the tool for each artifact, or the error that names what to install.

    `compiler` is the device's compiler, where that is a tool of its own; `general` are the errors that block every artifact.
    """

    target: Target
    compile_part: Mapping[str, Json] | None
    tools: Mapping[str, str]
    compiler: str | None
    general: tuple[LlmbuildError, ...]
    linking: tuple[LlmbuildError, ...]
    aliases: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[LlmbuildError, ...]:
        return (*self.general, *self.linking)

    @property
    def ready(self) -> tuple[str, ...]:
        """The artifacts that can be made here."""
        return () if self.general else tuple(self.tools)

    def to_json(self) -> Mapping[str, Json]:
        target = self.target
        return {
            "name": target.name,
            "aliases": list(self.aliases),
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


def examine_targets(names: Sequence[str] = (), manifest: Path | None = None, *, trust: bool = False) -> list[Examined]:
    """The targets of these names, or all, with what this machine has for each; those of a manifest's directory come first.

    No store is opened and nothing is built; a program that the project itself names runs where it is trusted, or with `trust`.

    Raises UsageError for a target that is missing or wrong.
    """
    user = _user_directory(manifest)
    machine = Machine(Toolchain(_Unremembered()), Trust(user.parent, trust), bytes_count=False)
    known = TargetNames(user)
    # A name that is none is refused as load_target refuses it.
    wanted = [known.target_of(name) or name for name in names] or target_names(user)
    return [examine(load_target(name, user), machine, known.aliases_of(name)) for name in wanted]


def examine(target: Target, machine: Machine, aliases: tuple[str, ...] = ()) -> Examined:
    """Look up what a target needs, without building anything."""
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
            if artifact not in OWN and (untrusted := machine.trust.flags_error(target.link_part())) is not None:
                raise untrusted
            tools[artifact] = machine.linker(target.link_part(), artifact)
        except LlmbuildError as error:
            if str(error) not in map(str, linking):
                linking.append(error)
    return Examined(target, compile_part, tools, compiler, tuple(general), tuple(linking), aliases)


def _user_directory(file: Path | None) -> Path:
    """The targets/ directory beside the manifest, or in the current directory when there is no manifest."""
    from llmbuild.manifest.load import USER_TARGETS
    from llmbuild.workspace.place import find_manifest

    try:
        return find_manifest(file).absolute().parent / USER_TARGETS
    except UsageError:
        if file is not None:
            raise
        return Path.cwd() / USER_TARGETS


class _Unremembered:
    """Digests of files that are computed each time: showing targets opens no store."""

    def digest(self, path: Path) -> Digest:
        return digest_file(path)
