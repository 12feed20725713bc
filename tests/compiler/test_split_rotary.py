"""The kernel that splits q, k and v and applies RoPE, in the form for CPUs and in that for any device, on CPU and OpenCL."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmbuild.compiler.kernels.cpu import rotary
from llmbuild.compiler.kernels.split_rotary import split_kernel
from llmbuild.models.frequencies import make_rope
from llmbuild.models.kv_cache import KVCacheLayout
from llmbuild.models.spec import RopeSpec
from tests.helpers.opencl import compile_kernel, compiling, require
from tests.helpers.primfunc import compile_function


def cpu(layout: KVCacheLayout) -> Any:
    return compile_function(rotary.split_kernel(layout))


def generic(layout: KVCacheLayout) -> Any:
    return compile_function(split_kernel(layout))


def opencl(layout: KVCacheLayout) -> Any:
    import tvm
    from tvm.s_tir import dlight

    require()
    with compiling() as device, device.target:
        module = tvm.IRModule({"main": split_kernel(layout).with_attr("target", device.target)})
        scheduled = dlight.ApplyDefaultSchedule(dlight.gpu.Fallback())(module)["main"]
    return compile_kernel(scheduled.without_attr("target"))


def split_layout(rope: RopeSpec | None, dim: int = 64, rolling: bool = False) -> KVCacheLayout:
    return KVCacheLayout(1, 4, 2, dim, "float32", rope, rolling=rolling)


@pytest.mark.parametrize("make", [cpu, generic, opencl])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("dim", "rotary_dim", "factor"), [(64, 64, 1.0), (64, 16, 1.25), (64, 20, 1.0), (10, 6, 1.5)])
def test_split_rotary(dim: int, rotary_dim: int, factor: float, interleaved: bool, make: Any) -> None:
    frequencies = tuple(0.7**index for index in range(rotary_dim // 2))
    rope = RopeSpec(rotary_dim, frequencies, factor, interleaved)
    split = make(split_layout(rope, dim))
    for rows in (1, 5):
        qkv = np.random.default_rng(rows).standard_normal((rows, 8, dim)).astype(np.float32)
        positions = np.arange(rows, dtype=np.int32) + 100
        q, k, v = (np.zeros((rows, n, dim), np.float32) for n in (4, 2, 2))
        split(qkv, positions, q, k, v, np.array(frequencies, np.float32))
        wanted = qkv.astype(np.float64)
        x = wanted[:, :6, :rotary_dim]
        pairs = (
            x[..., 0::2] + 1j * x[..., 1::2]
            if interleaved
            else x[..., : len(frequencies)] + 1j * x[..., len(frequencies) :]
        )
        angles = positions[:, None, None] * np.array(frequencies, np.float32).astype(float)
        pairs = pairs * factor * np.exp(1j * angles)
        both = np.stack([pairs.real, pairs.imag], axis=-1 if interleaved else -2)
        wanted[:, :6, :rotary_dim] = both.reshape(x.shape)
        for found, heads in ((q, slice(0, 4)), (k, slice(4, 6)), (v, slice(6, 8))):
            np.testing.assert_allclose(found, wanted[:, heads], atol=5e-5)


@pytest.mark.parametrize("make", [cpu, generic, opencl])
@pytest.mark.parametrize("layout", [split_layout(None), split_layout(make_rope(1e4, 64), rolling=True)])
def test_split_alone(layout: KVCacheLayout, make: Any) -> None:
    """Where layers or attention turn q and k, the cache only splits, whatever it is told."""
    split = make(layout)
    qkv = np.random.default_rng(3).standard_normal((5, 8, 64)).astype(np.float32)
    q, k, v = (np.zeros((5, n, 64), np.float32) for n in (4, 2, 2))
    split(qkv, np.arange(5, dtype=np.int32), q, k, v, 1)
    np.testing.assert_array_equal(np.concatenate([q, k, v], axis=1), qkv)
