"""CUDA: GPUs of NVIDIA."""

from __future__ import annotations

from llmbuild.targets.kinds.device_kind import LIMITS, DeviceKind, attributes

CUDA_ARCHS = (
    "sm_50 sm_52 sm_53 sm_60 sm_61 sm_62 sm_70 sm_72 sm_75 sm_80 sm_86 sm_87 sm_88 sm_89 sm_90 sm_90a "
    "sm_100 sm_100a sm_100f sm_103 sm_103a sm_103f sm_110 sm_110a sm_110f sm_120 sm_120a sm_120f sm_121 sm_121a sm_121f"
)

KIND = DeviceKind(
    "cuda",
    attributes(f"{LIMITS} registers_per_block l2_cache_size_bytes", strings="arch mcpu"),
    dtypes=("float32", "float16", "bfloat16"),
    archs=tuple(CUDA_ARCHS.split()),
    arch_attribute="arch",
    several=True,
    opt_flags=frozenset(
        ("flashinfer", "cublas_gemm", "faster_transformer", "cudagraph", "cutlass", "ipc_allreduce_strategy")
    ),
    extra="cuda",
    generator_from="the wheel of PyPI, or one that was built from source with USE_CUDA=ON",
)
