"""Turning the objects that `lower` wrote into the artifact a runtime loads: one module an artifact format.

`identity` names the tool that `link_objects` would use, for the key of a link action and for a plan that wants to know
before any long work whether the tool is there.  Both raise ToolchainError when it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.emscripten.toolchain import parts as emcc_parts
from llmbuild.errors import UsageError
from llmbuild.linkers import archive, elf, macho, pe, tools, wasm
from llmbuild.programs.parts import Parts

FORMATS: Mapping[str, str] = {"so": "elf", "dylib": "macho", "dll": "pe", "tar": "archive", "wasm": "wasm"}
"""Which module writes each artifact kind."""


def output_name(artifact: str) -> str:
    """The file that `link` writes for an artifact kind: "lib.so", "lib.tar"."""
    _format(artifact)
    return f"lib.{artifact}"


def carries_name(link: Mapping[str, Json], artifact: str) -> bool:
    """Whether the artifact's bytes hold the name of its file, which is then part of the link action's key."""
    written_by = FORMATS.get(artifact)
    return written_by in ("macho", "pe") or (written_by == "elf" and elf.carries_name(link))


def identity(link: Mapping[str, Json], artifact: str) -> str:
    """A name of the tool and its version, the same on every machine that has the same tool (no paths in it)."""
    match _format(artifact):
        case "elf":
            return elf.identity(link)
        case "macho":
            return macho.identity(link)
        case "pe":
            return pe.identity(link)
        case "wasm":
            return wasm.identity(link)
        case _:
            return archive.IDENTITY


def parts(link: Mapping[str, Json], artifact: str) -> Parts | None:
    """The files of the tool that `identity` names; None where llmbuild itself writes the artifact."""
    match _format(artifact):
        case "elf":
            return tools.parts(elf.find(link), link)
        case "macho":
            return tools.parts(macho.find(link), link)
        case "pe":
            return tools.parts(pe.find(link), link)
        case "wasm":
            return emcc_parts(wasm.find(link))
        case _:
            return None


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
    The bytes depend on nothing but the objects, the tool and these arguments.
    """
    match _format(artifact):
        case "elf":
            elf.link(link, objects, out, scratch, name)
        case "macho":
            macho.link(link, objects, out, scratch, name)
        case "pe":
            pe.link(link, objects, out, scratch, name)
        case "wasm":
            wasm.link(link, objects, out, scratch)
        case _:
            archive.write(objects, out, prefix)


def _format(artifact: str) -> str:
    try:
        return FORMATS[artifact]
    except KeyError:
        known = ", ".join(f"'{name}'" for name in FORMATS)
        raise UsageError(f"no linker writes '{artifact}' artifacts", fix=f"choose one of {known}") from None
