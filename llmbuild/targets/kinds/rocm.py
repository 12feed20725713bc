"""ROCm: GPUs of AMD."""

from __future__ import annotations

from llmbuild.targets.kinds.device_kind import LIMITS, DeviceKind, attributes

ROCM_ARCHS = (
    "gfx900 gfx906 gfx908 gfx90a gfx942 gfx950 gfx1010 gfx1011 gfx1012 gfx1030 gfx1031 gfx1032 gfx1033 gfx1034 gfx1035 "
    "gfx1036 gfx1100 gfx1101 gfx1102 gfx1103 gfx1150 gfx1151 gfx1152 gfx1153 gfx1200 gfx1201"
)

KIND = DeviceKind(
    "rocm",
    attributes(LIMITS, strings="mcpu mtriple", lists="mattr"),
    dtypes=("float32", "float16", "bfloat16"),
    archs=tuple(ROCM_ARCHS.split()),
    one_arch=True,
    warps={"gfx9": 64, "gfx1": 32},
    several=True,
    opt_flags=frozenset(("cublas_gemm",)),
    extra="cross",
)
