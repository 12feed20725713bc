"""A target: a target file merged with the files that it extends, and the parts that tasks read of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.targets.compile_part import CPU
from llmbuild.targets.cpu import native_cpu
from llmbuild.targets.kinds import device_kind
from llmbuild.targets.kinds.device_kind import DeviceKind, arch_order

ARTIFACTS = ("so", "dylib", "dll", "tar", "wasm")
SHARED = frozenset({"so", "dylib", "dll"})
"""Artifacts that a process loads by themselves; their symbols need no prefix."""

STATIC = frozenset({"tar"})
"""System libraries that an application links, several into one binary."""

LINKERS = ("cc", "lld", "zig", "ndk", "xcode", "mingw", "msvc", "emcc")
NATIVE = "native"

_VERSIONED = re.compile(r"-(?:macosx|macos|ios)(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True)
class RequiredCommand:
    """A command that must be on PATH, and the command that installs it where a target file names one ("" where not)."""

    command: str
    install: str = ""

    @property
    def fix(self) -> str:
        return f"install it: `{self.install}`" if self.install else f"install {self.command}, or put it on PATH"


@dataclass(frozen=True, slots=True)
class Target:
    """A target file merged with the files that it extends; `files` are all of them, the nearest first."""

    name: str
    description: str
    device: Mapping[str, Json]
    archs: tuple[str, ...]
    dtypes: tuple[str, ...]
    several_devices: bool
    features: Mapping[str, tuple[str, ...]]
    triple: str
    cpu: str
    cpu_features: tuple[str, ...]
    artifacts: tuple[str, ...]
    artifact: str
    system_lib_prefix: str
    linker: str | None
    compiler: tuple[str, ...] | None
    link_flags: tuple[str, ...]
    minimum_os: str | None
    needed: tuple[str, ...] | None
    environment: tuple[str, ...]
    opt: str | None
    metadata: Mapping[str, int]
    tools: tuple[RequiredCommand, ...]
    files: tuple[Path, ...]

    @property
    def kind(self) -> DeviceKind:
        return device_kind(str(self.device["kind"]))

    def compile_part(self) -> Mapping[str, Json]:
        """`{"device": …, "host": …}`: dictionaries for TVM's Target; with `archs` where code is made for architectures.

        For a CPU the device is the host, so that both carry triple, CPU and features; `cpu = "native"` is resolved to this
        machine's CPU.  Schedules are chosen for one architecture, the oldest of `archs`, unless the target names one.
        Raises ToolchainError when the target is native and this machine's CPU is unknown or of another architecture.
        """
        cpu, features = self.cpu, self.cpu_features
        if cpu == NATIVE:
            cpu, found = native_cpu(self.triple)
            features = (*found, *features)
        host: dict[str, Json] = {"kind": CPU, "mtriple": self.triple}
        if cpu:
            host["mcpu"] = cpu
        if features:
            host["mattr"] = list(features)
        if self.kind.name == CPU:
            return {"device": {**host, **self.device}, "host": host}
        if not self.archs:
            return {"device": dict(self.device), "host": host}
        archs = sorted(self.archs, key=arch_order)
        device: dict[str, Json] = {self.kind.arch_attribute: archs[0]}
        lanes = next((lanes for begin, lanes in self.kind.warps.items() if archs[0].startswith(begin)), None)
        if lanes is not None:
            device["thread_warp_size"] = lanes
        return {"device": {**device, **self.device}, "host": host, "archs": archs}

    def link_part(self) -> Mapping[str, Json]:
        """The link part: triple and flags, and those of linker, compiler, minimum-os and needed that are set."""
        part: dict[str, Json] = {"triple": self.triple, "flags": list(self.link_flags)}
        compiler = self.compiler and (self.compiler[0] if len(self.compiler) == 1 else list(self.compiler))
        named = {"linker": self.linker, "compiler": compiler, "minimum-os": self.minimum_os or self._oldest_os()}
        part.update({key: value for key, value in named.items() if value is not None})
        if self.needed is not None:
            part["needed"] = list(self.needed)
        if self.environment:
            part["environment"] = list(self.environment)
        return part

    def _oldest_os(self) -> str | None:
        """The version in an Apple triple: 13.0 of arm64-apple-macosx13.0.0."""
        found = _VERSIONED.search(self.triple)
        return None if found is None else f"{found[1]}.{found[2] or 0}"

    def can_compute(self, dtype: str) -> bool:
        """Whether kernels of a number type can be made; the kind's attribute `supports_<type>`, if any, must allow it."""
        attribute = f"supports_{dtype}"
        told = self.device.get(attribute, dtype == "float32") if attribute in self.kind.attributes else True
        return dtype in self.dtypes and bool(told)

    def required_features(self, dtype: str) -> tuple[str, ...]:
        """What a library that computes in a number type requires of the device that runs it."""
        own = (
            word
            for name, words in self.kind.attribute_features.items()
            if self.device.get(name) is True
            for word in words
        )
        return tuple(dict.fromkeys((*self.features.get(dtype, ()), *own)))

    def missing_tools(self) -> tuple[RequiredCommand, ...]:
        """The tools of [requires] that are not on this machine's PATH."""
        return tuple(tool for tool in self.tools if shutil.which(tool.command) is None)
