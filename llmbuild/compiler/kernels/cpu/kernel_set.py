"""The kernels that a library for a CPU uses."""

from __future__ import annotations

from llmbuild.compiler.kernels import KernelSet
from llmbuild.compiler.kernels.cpu import logits, row_moves, softmax
from llmbuild.compiler.kernels.cpu.kv_cache import replacements
from llmbuild.compiler.kernels.cpu.linear import for_library

KERNELS = KernelSet(for_library, replacements, softmax, logits, row_moves)
