"""CPUs: LLVM inside TVM makes the code, of the library and of its host alike.

Functions that runtimes call on GPUs alone (sampling on the device) have no CPU form and are not part of a CPU library, as in
MLC's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbuild.compiler.devices.device import Device

if TYPE_CHECKING:
    from llmbuild.compiler.kernels import KernelSet


class Cpu(Device):
    """A CPU, which is its own host."""

    name = "cpu"

    def target(self, device: Mapping[str, Any], host: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002
        return host

    def operators(self) -> list[Any]:
        from llmbuild.compiler.passes.activations import CallActivations

        return [CallActivations()]

    def kernels(self) -> KernelSet:
        from llmbuild.compiler.kernels.cpu.kernel_set import KERNELS

        return KERNELS

    def schedules(self, target: Any, *, stock: bool = False) -> list[Any]:  # noqa: ARG002
        from llmbuild.compiler import schedules

        return [schedules.for_cpu(stock=stock), schedules.narrow()]


DEVICE = Cpu()
