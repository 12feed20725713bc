"""The packages that a job must install to build for a target: extras of llmbuild and packages of a distribution.

The job runs on x86-64 Debian or Ubuntu.  Tools of other systems alone (Xcode, the NDK, a TVM that was built with Vulkan) are in
no package, so that they are not listed here, and neither are other commands that a target file has for its tools: a pipeline
would run a stranger's command.  `llmbuild targets` names what a machine lacks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmbuild.canonical import Json
from llmbuild.targets.compile_part import device_kind as kind_of
from llmbuild.targets.kinds import device_kind

_APT = re.compile(r"(?:sudo )?apt(?:-get)? install (?:-y )?([a-z0-9][a-z0-9.+-]*(?: [a-z0-9][a-z0-9.+-]*)*)")
_CROSS = "cross"
"""The extra with linkers for other machines."""
_COMPILER = ("gcc", "libc6-dev")
_LINKERS: Mapping[str, tuple[str, ...]] = {"cc": _COMPILER, "lld": ("lld",), "mingw": ("gcc-mingw-w64",)}
"""The packages of the linkers that a target may name."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Extras of llmbuild, and packages of Debian and Ubuntu."""

    extras: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def to_json(self) -> Mapping[str, Json]:
        """As words of a command line: `pip install PIP`, `apt-get install APT`."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return {"pip": f"llmbuild{extras}", "apt": " ".join(self.packages)}


def needs(
    compile_part: Mapping[str, Json], link: Mapping[str, Json], artifact: str, tools: Sequence[Mapping[str, str]] = ()
) -> Needs:
    """The requirements of a build for a resolved target; `tools` are those of its [requires], with what installs them."""
    extras = {device_kind(kind_of(compile_part)).extra, _CROSS if _needs_cross(link, artifact) else ""} - {""}
    packages = dict.fromkeys(_packages(link, artifact))
    for tool in tools:
        found = _APT.fullmatch(tool["install"])
        if found is not None:
            packages.update(dict.fromkeys(found[1].split(" ")))
    return Needs(tuple(sorted(extras)), tuple(packages))


def _needs_cross(link: Mapping[str, Json], artifact: str) -> bool:
    """Whether the linker is one of those that the extra brings."""
    if "compiler" in link or link.get("linker") not in (None, "zig"):
        return False
    return artifact in ("dylib", "dll") or (artifact == "so" and not (_is_native(link) and "linker" not in link))


def _packages(link: Mapping[str, Json], artifact: str) -> Sequence[str]:
    if artifact == "tar" or "compiler" in link:
        return ()
    if artifact == "wasm":
        return ("emscripten",)
    named = link.get("linker")
    if named is not None:
        return _LINKERS.get(str(named), ())
    return _COMPILER if artifact == "so" and _is_native(link) else ()


def _is_native(link: Mapping[str, Json]) -> bool:
    """Whether the C compiler of the job's machine links for the triple."""
    triple = str(link.get("triple", "x86_64-linux-gnu"))
    return triple.startswith(("x86_64-", "amd64-")) and "linux" in triple and not triple.endswith(("android", "musl"))
