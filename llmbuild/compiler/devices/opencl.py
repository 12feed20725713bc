"""OpenCL: a library contains source, which the driver compiles."""

from __future__ import annotations

from typing import Any

from llmbuild.compiler.devices.gpu import Gpu


class OpenCl(Gpu):
    def attention_threads(self, target: Any) -> int:
        small = "android" in str(target.host) or "adreno" in str(target.attrs)
        return 256 if small else super().attention_threads(target)


DEVICE = OpenCl("opencl")
