"""Vulkan, for which TVM writes SPIR-V."""

from __future__ import annotations

from llmbuild.targets.kinds.device_kind import LIMITS, DeviceKind, attributes

KIND = DeviceKind(
    "vulkan",
    attributes(
        f"{LIMITS} supported_subgroup_operations max_block_size_x max_block_size_y max_block_size_z"
        " max_push_constants_size max_uniform_buffer_range max_storage_buffer_range"
        " max_per_stage_descriptor_storage_buffer driver_version vulkan_api_version max_spirv_version",
        "supports_float16 supports_float32 supports_float64 supports_int8 supports_int16 supports_int32"
        " supports_int64 supports_8bit_buffer supports_16bit_buffer supports_storage_buffer_storage_class"
        " supports_push_descriptor supports_dedicated_allocation supports_integer_dot_product"
        " supports_cooperative_matrix",
        "device_type device_name driver_name",
        "mattr",
    ),
    features={"float16": ("shaderFloat16", "storageBuffer16BitAccess")},
    generator_from="one that was built from source with USE_VULKAN=ON and the Vulkan SDK",
)
