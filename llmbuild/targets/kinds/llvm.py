"""CPUs, for which LLVM makes the code."""

from __future__ import annotations

from llmbuild.targets.kinds.device_kind import DeviceKind, attributes

KIND = DeviceKind(
    "llvm",
    attributes(
        "num-cores opt-level vector-width",
        "fast-math fast-math-nnan fast-math-ninf fast-math-nsz fast-math-arcp fast-math-contract fast-math-reassoc",
        "mcpu mtriple mfloat-abi mabi jit",
        "mattr cl-opt",
    ),
    dtypes=("float32", "float16", "bfloat16"),
    spoken="CPU",
)
