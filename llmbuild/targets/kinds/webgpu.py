"""WebGPU: GPUs in browsers, which compile the kernels."""

from __future__ import annotations

from llmbuild.targets.kinds.device_kind import DeviceKind, attributes

KIND = DeviceKind(
    "webgpu",
    attributes("max_num_threads max_shared_memory_per_block thread_warp_size", "supports_subgroups"),
    features={"float16": ("shader-f16",)},
    attribute_features={"supports_subgroups": ("subgroups",)},
    # WebLLM's, in 0.2.86.
    runtime_limits={"max_num_threads": 1024, "max_shared_memory_per_block": 32 << 10},
)
