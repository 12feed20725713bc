"""Turning the objects that `lower` wrote into the artifact a runtime loads: one module an artifact format.

`identity` names the tool that `link` would use, for the key of a link action and for a plan that wants to know before
any long work whether the tool is there.  Both raise ToolchainError when it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.errors import UsageError
from llmbuild.linkers import archive, elf

FORMATS: Mapping[str, str] = {"so": "elf", "tar": "archive"}
"""Which module writes each artifact kind."""


def output_name(artifact: str) -> str:
    """The file that `link` writes for an artifact kind: "lib.so", "lib.tar"."""
    _format(artifact)
    return f"lib.{artifact}"


def identity(link: Mapping[str, Json], artifact: str) -> str:
    """A name of the tool and its version, the same on every machine that has the same tool (no paths in it)."""
    return elf.identity(link) if _format(artifact) == "elf" else archive.IDENTITY


def link_objects(
    link: Mapping[str, Json], artifact: str, objects: Sequence[Path], out: Path, *, scratch: Path, prefix: str = ""
) -> None:
    """Write the artifact `out` from object files.

    `link` is the link part of the resolved target, `prefix` the system-library prefix (it names the members of an
    archive), `scratch` an empty directory.  The bytes depend on nothing but the objects, the tool and these arguments.
    """
    if _format(artifact) == "elf":
        elf.link(link, objects, out, scratch)
    else:
        archive.write(objects, out, prefix)


def _format(artifact: str) -> str:
    try:
        return FORMATS[artifact]
    except KeyError:
        known = ", ".join(f"'{name}'" for name in FORMATS)
        raise UsageError(f"no linker writes '{artifact}' artifacts", fix=f"choose one of {known}") from None
