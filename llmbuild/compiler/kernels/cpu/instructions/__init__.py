"""The instruction sets that products of small whole numbers are made of, a file for each."""

from __future__ import annotations

from typing import Any

from tvm.target.codegen import llvm_cpu_has_features

from llmbuild.compiler.kernels.cpu.instructions.avx2 import Avx2
from llmbuild.compiler.kernels.cpu.instructions.instructions import Instructions
from llmbuild.compiler.kernels.cpu.instructions.neon import Neon

SETS: tuple[Instructions, ...] = (Avx2(), Neon())
"""The best first: a target may have several."""


def of_target(target: Any) -> Instructions | None:
    """The best that every CPU of a target has, if any."""
    with target:
        return next((one for one in SETS if llvm_cpu_has_features(one.feature)), None)
