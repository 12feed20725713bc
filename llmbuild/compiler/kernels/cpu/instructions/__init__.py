"""The instruction sets that products of small whole numbers are made of, a file for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm.target.codegen import llvm_cpu_has_features

from llmbuild.compiler.kernels.cpu.instructions.avx2 import Avx2
from llmbuild.compiler.kernels.cpu.instructions.dotprod import DotProduct
from llmbuild.compiler.kernels.cpu.instructions.i8mm import MatrixProduct
from llmbuild.compiler.kernels.cpu.instructions.instructions import Instructions
from llmbuild.compiler.kernels.cpu.instructions.neon import Neon
from llmbuild.compiler.kernels.cpu.instructions.vnni import Avx512Vnni, AvxVnni
from llmbuild.compiler.levels.level import Level

SETS: tuple[Instructions, ...] = (Avx512Vnni(), AvxVnni(), Avx2(), MatrixProduct(), DotProduct(), Neon())
"""The best first: a target may have several."""


def of_target(target: Any) -> Instructions | None:
    """The best that every CPU of a target has, if any."""
    with target:
        return next((one for one in SETS if all(map(llvm_cpu_has_features, one.features))), None)


def of_levels(target: Any) -> Mapping[Level, Instructions]:
    """Those of levels that only some CPUs of a target have.  There are none where all have one, or no instructions at all."""
    base, triple = of_target(target), str(target.attrs.get("mtriple", ""))
    if base is None or base.level is not None:
        return {}
    return {one.level: one for one in SETS if one.level is not None and one.level.serves(triple)}
