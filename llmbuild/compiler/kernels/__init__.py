"""The choice of kernels for the linear layers, per device kind: the one place where it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmbuild.quantization.layers import Kernels


def kernels_for(device: str) -> Kernels:
    """Kernels for a device kind ("cpu", "metal", "cuda", …).  Devices without kernels of ours get TVM's operators, which
    the pipeline schedules later."""
    from llmbuild.compiler.kernels.cpu import CpuKernels
    from llmbuild.quantization.layers import GenericKernels

    generic = GenericKernels()
    return CpuKernels(generic) if device == "cpu" else generic
