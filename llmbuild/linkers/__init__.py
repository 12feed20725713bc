"""Turning the objects that `lower` wrote into the artifact a runtime loads: one module an artifact format.

`identity` names the tool that `link_objects` would use, for the key of a link action and for a plan that checks before any long
work whether the tool is installed.  Both raise ToolchainError when it is not.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from llmbuild.canonical import Json
from llmbuild.errors import UsageError
from llmbuild.programs.parts import Parts

FORMATS: Mapping[str, str] = {"so": "elf", "dylib": "macho", "dll": "pe", "tar": "archive", "wasm": "wasm"}
"""Which module writes each artifact kind."""

OWN = frozenset({"tar"})
"""Artifact kinds that llmbuild writes itself, whatever tool a target names."""


class Format(Protocol):
    """The interface of each of these modules."""

    def identity(self, link: Mapping[str, Json], /) -> str: ...

    def parts(self, link: Mapping[str, Json], /) -> Parts | None: ...

    def carries_name(self, link: Mapping[str, Json], /) -> bool: ...

    def link(
        self, link: Mapping[str, Json], objects: Sequence[Path], out: Path, scratch: Path, prefix: str, name: str, /
    ) -> None: ...


def output_name(artifact: str) -> str:
    """The file that `link` writes for an artifact kind: "lib.so", "lib.tar"."""
    _format(artifact)
    return f"lib.{artifact}"


def carries_name(link: Mapping[str, Json], artifact: str) -> bool:
    """Whether the artifact's bytes contain the name of its file, which is then part of the link action's key."""
    return artifact in FORMATS and _format(artifact).carries_name(link)


def identity(link: Mapping[str, Json], artifact: str) -> str:
    """A name of the tool and its version, the same on every machine that has the same tool (no paths in it)."""
    return _format(artifact).identity(link)


def parts(link: Mapping[str, Json], artifact: str) -> Parts | None:
    """The files of the tool that `identity` names; None where llmbuild itself writes the artifact."""
    return _format(artifact).parts(link)


def link_objects(
    link: Mapping[str, Json],
    artifact: str,
    objects: Sequence[Path],
    out: Path,
    *,
    scratch: Path,
    prefix: str = "",
    name: str = "",
) -> None:
    """Write the artifact `out` from object files.

    `link` is the link part of the resolved target, `prefix` the system-library prefix (it names the members of an
    archive), `name` the file name that the artifact will have (for those that carry it), `scratch` an empty directory.
    The bytes depend only on the objects, the tool and these arguments.
    """
    _format(artifact).link(link, objects, out, scratch, prefix, name)


def _format(artifact: str) -> Format:
    # A plan imports the formats of its own platforms: each takes a millisecond, and that of browsers four.
    if artifact not in FORMATS:
        known = ", ".join(f"'{name}'" for name in FORMATS)
        raise UsageError(f"no linker writes '{artifact}' artifacts", fix=f"choose one of {known}")
    return cast(Format, importlib.import_module(f"llmbuild.linkers.{FORMATS[artifact]}"))
