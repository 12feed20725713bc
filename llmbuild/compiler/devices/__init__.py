"""What code generation requires of a device kind: one module a kind, looked up by the kind's name.

Each has `DEVICE`, whose hooks `device.Device` describes; the module of the same name in `llmbuild.targets.kinds` defines what a
target may set.  None of them imports TVM before a hook for code generation is called: a plan looks up the compiler alone.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.compiler.devices.device import Device
from llmbuild.errors import UsageError
from llmbuild.programs.parts import Parts
from llmbuild.targets.compile_part import device_kind


def find_device(kind: str) -> Device:
    """The device of TVM's kind.  Raises UsageError for an unknown kind."""
    known = kind.isidentifier() and importlib.util.find_spec(f"llmbuild.compiler.devices.{kind}") is not None
    found = getattr(importlib.import_module(f"llmbuild.compiler.devices.{kind}"), "DEVICE", None) if known else None
    if not isinstance(found, Device):
        raise UsageError(f"'{kind}' is no device kind", fix='write "cpu" or a table with a kind')
    return found


def identity(compile_part: Mapping[str, Json]) -> str | None:
    """The compiler of the device code and its version, such as "nvcc 13.0.88"; None for a device that needs none.

    Raises ToolchainError when it is not on this machine or makes no code for an architecture of the target.
    """
    return _device(compile_part).identity(_archs(compile_part))


def parts(compile_part: Mapping[str, Json]) -> Parts | None:
    """The files of what `identity` names, which is not run for it; None where `identity` is None.

    Raises ToolchainError when it is not on this machine.
    """
    return _device(compile_part).parts()


def prepare(compile_part: Mapping[str, Json]) -> AbstractContextManager[None]:
    """A context in which TVM builds and exports modules for the device: its callbacks are those of the device's compiler.

    Entering raises ToolchainError as `identity` does; a compiler that fails raises one with its output.
    """
    return _device(compile_part).prepare(_archs(compile_part))


def require(compile_part: Mapping[str, Json], objects: Path) -> None:
    """Raise ToolchainError unless the object file contains machine code for every architecture of the target, and no source."""
    _device(compile_part).require(_archs(compile_part), objects)


def _device(compile_part: Mapping[str, Json]) -> Device:
    return find_device(device_kind(compile_part))


def _archs(compile_part: Mapping[str, Json]) -> Sequence[str]:
    device = compile_part["device"]
    archs = compile_part.get("archs") or ()
    if not archs and isinstance(device, Mapping):
        # A target that was not resolved from a file names its one architecture as TVM does.
        named = device.get("arch", device.get("mcpu"))
        archs = () if named is None else (str(named),)
    if isinstance(archs, str) or not isinstance(archs, Sequence):
        raise TypeError(f"archs is a list of architectures, not {archs!r}")
    return tuple(map(str, archs))
