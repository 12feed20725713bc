"""`server`: models and shared libraries as MLCEngine and `mlc_llm serve` open them.

    <model>-<scheme>-MLC/                       MLCEngine's `model`
    libs/<model>-<scheme>-<platform>.so          its `model_lib` (.dylib, .dll)

A model directory is opened as it is; MLCEngine looks for no library beside it when `model_lib` names one.
"""

from __future__ import annotations

from typing import ClassVar

from llmbuild.packages.kind import Out, Package, PackageKind, Platform


class Server(PackageKind):
    """Everything is passed on: no byte of a package is its own."""

    name: ClassVar[str] = "server"
    sequences: ClassVar[int] = 4  # MLCEngine's mode "local", its default.
    batches: ClassVar[bool] = True
    wants: ClassVar[str] = "shared libraries (.so, .dylib, .dll)"

    def takes(self, platform: Platform) -> bool:
        return platform.artifact in ("so", "dylib", "dll")

    def write(self, package: Package, out: Out) -> None:
        for member in package.members:
            for name, file in member.files.items():
                out.pass_on(file, f"{member.model_id}/{name}")
            for library in member.libraries:
                out.pass_on(library.file, f"libs/{member.library_name(library)}")


KIND = Server()
