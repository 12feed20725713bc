"""What is known of each device kind without importing TVM: its attributes, number types, architectures, code generator.

The attributes are those that TVM 0.27 accepts for the kind (`Target` refuses others); a test compares the two lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from llmbuild.errors import did_you_mean

CPU = "llvm"

_COMMON: Mapping[str, type] = {
    "keys": list,
    "tag": str,
    "device": str,
    "model": str,
    "libs": list,
    "target_device_type": int,
}
_LIMITS = ("max_num_threads", "max_threads_per_block", "max_shared_memory_per_block", "thread_warp_size")


def _attributes(integers: str = "", booleans: str = "", strings: str = "", lists: str = "") -> Mapping[str, type]:
    return {
        "kind": str,
        **_COMMON,
        **dict.fromkeys(integers.split(), int),
        **dict.fromkeys(booleans.split(), bool),
        **dict.fromkeys(strings.split(), str),
        **dict.fromkeys(lists.split(), list),
    }


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """One of TVM's target kinds.

    `dtypes` are the number types its kernels can compute in; `features` what a library in such a type asks of the device
    that runs it (the names are those of the device's own interface); `archs` the architectures that `[device] archs` may
    name, empty where code is generated for the kind as a whole; `one_arch` says that a library holds code for one of them;
    `several` whether several devices can share a model.
    """

    name: str
    attributes: Mapping[str, type]
    dtypes: tuple[str, ...] = ("float32", "float16")
    features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    archs: tuple[str, ...] = ()
    one_arch: bool = False
    several: bool = False
    warps: Mapping[str, int] = field(default_factory=dict)
    """Lanes of a warp by the beginning of an architecture's name, where they differ."""

    def unknown_attribute(self, name: str) -> str | None:
        """None for an attribute that the kind has, else a sentence that says which are near or known."""
        if name in self.attributes:
            return None
        return did_you_mean(name, self.attributes) or f"known: {', '.join(sorted(self.attributes))}"

    def wrong_type(self, name: str, value: object) -> str | None:
        """`a whole number` and the like, when the value is not of the attribute's type."""
        kind = self.attributes[name]
        if kind is int:
            return None if isinstance(value, int) and not isinstance(value, bool) else "a whole number"
        spoken = {bool: "true or false", str: "a string", list: "a list of strings"}[kind]
        return None if isinstance(value, kind) else spoken


_WORDS = "sm_50 sm_52 sm_53 sm_60 sm_61 sm_62 sm_70 sm_72 sm_75 sm_80 sm_86 sm_87 sm_88 sm_89 sm_90 sm_90a"
_NEWER = (
    "sm_100 sm_100a sm_100f sm_103 sm_103a sm_103f sm_110 sm_110a sm_110f sm_120 sm_120a sm_120f sm_121 sm_121a sm_121f"
)
_GFX = (
    "gfx900 gfx906 gfx908 gfx90a gfx942 gfx950 gfx1010 gfx1011 gfx1012 gfx1030 gfx1031 gfx1032 gfx1033 gfx1034 gfx1035 "
    "gfx1036 gfx1100 gfx1101 gfx1102 gfx1103 gfx1150 gfx1151 gfx1152 gfx1153 gfx1200 gfx1201"
)

_KINDS = (
    DeviceKind(
        CPU,
        _attributes(
            "num-cores opt-level vector-width",
            "fast-math fast-math-nnan fast-math-ninf fast-math-nsz fast-math-arcp fast-math-contract fast-math-reassoc",
            "mcpu mtriple mfloat-abi mabi jit",
            "mattr cl-opt",
        ),
        dtypes=("float32", "float16", "bfloat16"),
    ),
    DeviceKind(
        "cuda",
        _attributes(" ".join((*_LIMITS, "registers_per_block l2_cache_size_bytes")), strings="arch mcpu"),
        dtypes=("float32", "float16", "bfloat16"),
        archs=tuple(f"{_WORDS} {_NEWER}".split()),
        several=True,
    ),
    DeviceKind(
        "rocm",
        _attributes(" ".join(_LIMITS), strings="mcpu mtriple", lists="mattr"),
        dtypes=("float32", "float16", "bfloat16"),
        archs=tuple(_GFX.split()),
        one_arch=True,
        several=True,
        warps={"gfx9": 64, "gfx1": 32},
    ),
    DeviceKind(
        "opencl",
        _attributes(
            " ".join(
                (
                    *_LIMITS,
                    "texture_spatial_limit texture_depth_limit max_function_args image_base_address_alignment",
                )
            )
        ),
        features={"float16": ("cl_khr_fp16",)},
    ),
    DeviceKind(
        "vulkan",
        _attributes(
            " ".join(_LIMITS)
            + " supported_subgroup_operations max_block_size_x max_block_size_y max_block_size_z max_push_constants_size"
            " max_uniform_buffer_range max_storage_buffer_range max_per_stage_descriptor_storage_buffer"
            " driver_version vulkan_api_version max_spirv_version",
            "supports_float16 supports_float32 supports_float64 supports_int8 supports_int16 supports_int32"
            " supports_int64 supports_8bit_buffer supports_16bit_buffer supports_storage_buffer_storage_class"
            " supports_push_descriptor supports_dedicated_allocation supports_integer_dot_product"
            " supports_cooperative_matrix",
            "device_type device_name driver_name",
            "mattr",
        ),
        features={"float16": ("shaderFloat16", "storageBuffer16BitAccess")},
    ),
    DeviceKind("metal", _attributes(" ".join((*_LIMITS, "max_function_args")))),
    DeviceKind(
        "webgpu",
        _attributes("max_num_threads max_shared_memory_per_block thread_warp_size", "supports_subgroups"),
        features={"float16": ("shader-f16",)},
    ),
)

KINDS: Mapping[str, DeviceKind] = {kind.name: kind for kind in _KINDS}
"""Every device kind that a target may have."""


def arch_order(arch: str) -> tuple[str, int, str]:
    """Sorts architectures as people do: sm_80, sm_90, sm_90a, sm_100."""
    found = re.fullmatch(r"([a-z_]+)([0-9]+)(.*)", arch)
    return (arch, 0, "") if found is None else (found[1], int(found[2]), found[3])


def unknown_arch(kind: DeviceKind, arch: str) -> str | None:
    """None for an architecture of the kind, else a sentence that says which are near or known."""
    if arch in kind.archs:
        return None
    return did_you_mean(arch, kind.archs) or f"known: {', '.join(kind.archs)}"
