"""Models whose heads TVM's GPU attention would leave out are refused, and no others."""

from __future__ import annotations

from typing import Any

import pytest
import tvm_ffi

from llmbuild.compiler.lower import resolve_target
from llmbuild.compiler.passes.kv_cache import AttachKVCache
from llmbuild.errors import InputError
from llmbuild.models.frequencies import make_rope
from llmbuild.models.kv_cache import KVCacheLayout
from tests.helpers.gpu_library import TARGETS


def computed_heads(layout: KVCacheLayout, target: Any) -> int:
    """How many heads the grid and the blocks of TVM's kernel for decode cover."""
    import tvm
    from tvm import tirx

    with target:
        kernel = AttachKVCache(layout, target, None)(tvm.IRModule())["batch_decode_paged_kv"]
    extents: dict[str, Any] = {}

    def note(loop: Any) -> None:
        if loop.thread_binding is not None:
            extents[str(loop.thread_binding.thread_tag)] = loop.extent

    tvm_ffi.structural_walk(kernel.body, (tirx.For, note))
    return int(extents["blockIdx.y"]) * int(extents["threadIdx.y"])


@pytest.mark.parametrize(
    ("name", "heads", "kv_heads", "dim"),
    [
        ("opencl", 9, 1, 128),
        ("opencl", 28, 4, 128),
        ("webgpu", 9, 3, 64),
        ("metal", 5, 1, 256),
        ("cuda", 9, 1, 128),
        ("cuda", 18, 2, 256),
        ("adreno", 9, 1, 128),
        ("rocm", 32, 2, 128),
    ],
)
def test_the_refusal_agrees_with_the_kernel(name: str, heads: int, kv_heads: int, dim: int) -> None:
    device, target = resolve_target(TARGETS[name])
    layout = KVCacheLayout(2, heads, kv_heads, dim, "float16", make_rope(10000.0, dim))
    if computed_heads(layout, target) == heads:
        device.require_attention(layout, target)
    else:
        with pytest.raises(InputError, match=f"{heads // kv_heads} heads of {dim} for each key-value head"):
            device.require_attention(layout, target)
