"""The choice of kernels for the linear layers, per device kind: the one place where it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmbuild.quantization.layers import Kernels


def kernels_for(device: str) -> Kernels:
    """Kernels for a device kind ("cpu", "metal", "cuda", …)."""
    from llmbuild.compiler.kernels.cpu.linear import CpuKernels
    from llmbuild.compiler.kernels.gpu.linear import GpuKernels
    from llmbuild.quantization.layers import GenericKernels

    return CpuKernels(GenericKernels()) if device == "cpu" else GpuKernels()
