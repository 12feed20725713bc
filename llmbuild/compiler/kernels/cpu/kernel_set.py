"""The kernels that a library for a CPU uses."""

from __future__ import annotations

from llmbuild.compiler.kernels import KernelSet
from llmbuild.compiler.kernels.cpu import logits, row_moves, softmax
from llmbuild.compiler.kernels.cpu.kv_cache import replacements
from llmbuild.compiler.kernels.cpu.linear import for_target
from llmbuild.quantization.layers import GenericKernels

KERNELS = KernelSet(
    lambda target, activations, one: for_target(target, GenericKernels(), activations, one),
    replacements,
    softmax,
    logits,
    row_moves,
)
