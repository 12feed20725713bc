"""What this machine has for a target, and what it lacks: commands, TVM's code generator, the device's compiler, the linker.

`llmbuild targets` shows it for every target.  A plan looks it up for the platforms that it builds, so that a missing tool
is reported before anything runs for minutes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmbuild.canonical import Digest, Json, digest_json
from llmbuild.errors import LlmbuildError, ToolchainError
from llmbuild.linkers import OWN
from llmbuild.manifest.project import Platform
from llmbuild.plan.observed import DEVICE_TOOL
from llmbuild.programs.parts import Parts
from llmbuild.targets.compile_part import device_kind
from llmbuild.workspace.absent import LockedTools
from llmbuild.workspace.tool_identities import Toolchain
from llmbuild.workspace.trust import Trust, UntrustedError

if TYPE_CHECKING:
    from llmbuild.engine.lack import Lack


class Machine:
    """Probes each tool once.  The errors are ToolchainErrors that name what to install."""

    def __init__(self, toolchain: Toolchain, trust: Trust, *, bytes_count: bool = True) -> None:
        """Only what is trusted runs.

        Without `bytes_count` tools are identified by name and version alone, and no files are read."""
        self._toolchain = toolchain
        self.trust = trust
        self._bytes_count = bytes_count
        self._answers: dict[Digest, str | LlmbuildError | None] = {}

    def missing_tools(self, tools: Sequence[Mapping[str, str]]) -> Iterator[LlmbuildError]:
        """One error for each command that is not on PATH; `install` is the command that brings it, "" where none is given."""
        for tool in tools:
            command, install = tool["command"], tool["install"]
            if shutil.which(command) is None:
                fix = f"`{install}`" if install else f"install {command}, or put it on PATH"
                yield ToolchainError(f"the command '{command}' is not on PATH", why="the target requires it", fix=fix)

    def missing_generator(self, compile_part: Mapping[str, Json]) -> LlmbuildError | None:
        """An error when TVM cannot generate code for the device kind, or is not installed."""
        kind = device_kind(compile_part)
        try:
            known = self._toolchain.code_generators()
            version = self._toolchain.version("apache-tvm")
        except LlmbuildError as error:
            return error
        if kind in known:
            return None
        from llmbuild.targets import kinds

        provided = kinds.device_kind(kind).generator_from or f"one that was built with {kind} on"
        return ToolchainError(
            f"TVM has no code generator for {kind}",
            why=f"the installed one (apache-tvm {version}) has {', '.join(sorted(known.intersection(kinds.kind_names())))}",
            fix=f"install a TVM that has it, {provided}",
        )

    def missing_for_device(self, compile_part: Mapping[str, Json]) -> list[LlmbuildError]:
        """One error for each thing that code for the device needs and this machine lacks."""
        generator = self.missing_generator(compile_part)
        if generator is not None:
            return [generator]
        try:
            self.device_compiler(compile_part)
        except LlmbuildError as error:
            return [error]
        return []

    def device_compiler(self, compile_part: Mapping[str, Json]) -> str | None:
        """The identity of the device's compiler, with the digest of its parts; None where TVM compiles the code alone or
        leaves it to the driver.

        Raises a LlmbuildError when it is missing.
        """
        from llmbuild.compiler import devices

        def ask() -> str | None:
            parts = devices.parts(compile_part) if self._bytes_count else None
            return self._identity(["device", compile_part], parts, lambda: devices.identity(compile_part))

        return self._once(["device", compile_part], ask)

    def linker(self, link: Mapping[str, Json], artifact: str) -> str:
        """The linker's identity, with the digest of its parts; raises a LlmbuildError when it is missing, and
        UntrustedError where the project names one that is not trusted."""
        from llmbuild import linkers

        if artifact not in OWN:
            self.trust.require_compiler(link)
            if self.trust.flags_error(link) is not None:
                # A compiler that is queried for its identity still obeys its flags: it may compile, or run another program.
                link = {**link, "flags": []}

        def ask() -> str | None:
            parts = linkers.parts(link, artifact) if self._bytes_count else None
            return self._identity(["identity", artifact, link], parts, lambda: linkers.identity(link, artifact))

        found = self._once(["linker", artifact, link], ask)
        assert found is not None
        return found

    def variables(self, link: Mapping[str, Json]) -> dict[str, str]:
        """The variables that a target adds to what its linker sees, as tools of a key."""
        from llmbuild.linkers.tools import variables_of
        from llmbuild.programs.environment import VARIABLE, identity

        return {VARIABLE + name: identity(name) for name in variables_of(link)}

    def _identity(self, question: list[Json], parts: Parts | None, ask: Callable[[], str | None]) -> str | None:
        """The identity that a tool reports, with the digest of its parts."""
        if parts is None:
            return ask()
        # The answer can change only with the parts, and a query of Emscripten takes a tenth of a second.
        programs = self._toolchain.programs
        digest = programs.digest(parts)
        said = programs.remembered([*question, digest], ask) if parts.complete else ask()
        return f"{said}+sha256.{digest}"

    def _once(self, question: Json, ask: Callable[[], str | None]) -> str | None:
        """The first answer to a question, or its error."""
        key = digest_json(question)
        if key not in self._answers:
            try:
                self._answers[key] = ask()
            except LlmbuildError as error:
                self._answers[key] = error
        found = self._answers[key]
        if isinstance(found, LlmbuildError):
            raise found
        return found

    def save(self) -> None:
        """Write the memo of programs for the next command."""
        self._toolchain.programs.save()

    def absent(self, platform: Platform) -> Iterator[tuple[str, LlmbuildError]]:
        """The missing tools of a platform, under their names in a lock file, each with the error that names what to install."""
        try:
            self.linker(platform.link, platform.artifact)
        except LlmbuildError as error:
            yield "linker", error
        try:
            self.device_compiler(platform.compile)
        except LlmbuildError as error:
            yield DEVICE_TOOL, error


@dataclass(frozen=True, slots=True)
class PlatformTools:
    """By platform: the linker, the device's compiler where that is a tool of its own, the variables that the linker
    sees because the target names them, and what is missing, by the kind of task that needs it ("lower", "link").

    A missing tool is taken from the lock file; where that does not pin it, the platform has none.
    """

    linkers: dict[str, str] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)
    variables: dict[str, dict[str, str]] = field(default_factory=dict)
    lacks: dict[str, dict[str, Lack]] = field(default_factory=dict)


def find_tools(platforms: Iterable[Platform], machine: Machine, locked: LockedTools) -> PlatformTools:
    """The tools of each of some platforms."""
    found = PlatformTools()
    for platform in platforms:
        commands = tuple(machine.missing_tools(platform.tools))
        _find_compiler(platform, machine, locked, found, commands)
        _find_linker(platform, machine, locked, found, commands)
    machine.save()
    return found


def _find_compiler(
    platform: Platform, machine: Machine, locked: LockedTools, found: PlatformTools, commands: tuple[LlmbuildError, ...]
) -> None:
    name = platform.name
    generator = machine.missing_generator(platform.compile)
    missing = commands if generator is None else (*commands, generator)
    try:
        compiler = machine.device_compiler(platform.compile)
    except LlmbuildError as error:
        # Without a generator there is nothing to compile, and one missing tool is enough to report.
        errors = (*missing, error) if generator is None else missing
        compiler = locked.name(DEVICE_TOOL, name)
        _add(found, name, "lower", errors, DEVICE_TOOL, compiler)
        if compiler is not None:
            compiler = locked.tools("lower", DEVICE_TOOL, name).get(DEVICE_TOOL, compiler)
    else:
        if missing:
            _add(found, name, "lower", missing)
    if compiler is not None:
        found.devices[name] = compiler


def _find_linker(
    platform: Platform, machine: Machine, locked: LockedTools, found: PlatformTools, commands: tuple[LlmbuildError, ...]
) -> None:
    name = platform.name
    untrusted = None if platform.artifact in OWN else machine.trust.flags_error(platform.link)
    if untrusted is not None:
        commands = (*commands, untrusted)
    try:
        linker = machine.linker(platform.link, platform.artifact)
    except UntrustedError as error:
        # The lock's pin of it came with the project too.
        _add(found, name, "link", (*commands, error), "linker")
        return
    except LlmbuildError as error:
        promised = locked.name("linker", name)
        _add(found, name, "link", (*commands, error), "linker", promised)
        if promised is None:
            return
        tools = locked.tools("link", "linker", name)
        found.linkers[name] = tools.get("linker", promised)
        variables = machine.variables(platform.link)
        # The variable's value here need not be that of the machine that has the tool.
        found.variables[name] = {variable: tools.get(variable, here) for variable, here in variables.items()}
        return
    if commands:
        _add(found, name, "link", commands)
    found.linkers[name] = linker
    found.variables[name] = machine.variables(platform.link)


def _add(
    found: PlatformTools,
    platform: str,
    kind: str,
    errors: tuple[LlmbuildError, ...],
    tool: str = "",
    locked: str | None = None,
) -> None:
    # A machine that has every tool need not load it.
    from llmbuild.engine.lack import Lack

    found.lacks.setdefault(platform, {})[kind] = Lack(errors, tool, locked)
