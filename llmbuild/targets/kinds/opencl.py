"""OpenCL, whose drivers compile the kernels."""

from __future__ import annotations

from llmbuild.targets.kinds.device_kind import LIMITS, DeviceKind, attributes

KIND = DeviceKind(
    "opencl",
    attributes(
        f"{LIMITS} texture_spatial_limit texture_depth_limit max_function_args image_base_address_alignment",
    ),
    features={"float16": ("cl_khr_fp16",)},
)
