"""Vulkan: TVM writes SPIR-V itself."""

from __future__ import annotations

from llmbuild.compiler.devices.gpu import SAMPLING, Gpu


class Vulkan(Gpu):
    sampling = SAMPLING


DEVICE = Vulkan("vulkan")
