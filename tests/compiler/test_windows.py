"""Windows by positions and soft caps in the whole KV cache: chunks, batches, rollbacks and forks."""

from __future__ import annotations

from typing import Any

import pytest

from llmbuild.models.kv_cache import KVCacheLayout
from tests.helpers.cache_scenarios import Run, build_cache, make_layout, worst_errors
from tests.helpers.opencl import compiling

MORE = [pytest.param(*rest, marks=pytest.mark.full) for rest in ((16, None), (33, 1.0), (None, 0.5))]
CPU = {"kind": "llvm", "mcpu": "x86-64-v3"}


def check(machine: Any, layout: KVCacheLayout, *, trees: bool = False) -> None:
    for name, errors in worst_errors(machine, layout, trees=trees).items():
        assert max(errors) < 5e-6, (name, errors)


@pytest.mark.parametrize(("window", "cap"), [(20, 2.0), *MORE])
def test_our_kernels_on_a_cpu(window: int | None, cap: float | None) -> None:
    import tvm

    layout = make_layout(window, cap)
    machine = build_cache(layout, "llvm", tvm.target.Target(CPU))
    check(machine, layout)
    # There are no kernels for a cache that rolls, and the runtime makes none that does.
    with pytest.raises(tvm.error.InternalError, match="RoPE mode must be normal"):
        Run(machine, layout, rolls=True)


@pytest.mark.full
@pytest.mark.parametrize("device", ["llvm", "opencl"])
def test_positions_are_there_where_the_cache_applies_no_rope(device: str) -> None:
    import tvm

    layout = make_layout(20, None, rope=False)
    if device == "llvm":
        check(build_cache(layout, device, tvm.target.Target(CPU)), layout)
        return
    with compiling(optimize=False) as compiled:
        machine = build_cache(layout, device, compiled.target)
    check(machine, layout, trees=True)


@pytest.mark.full
@pytest.mark.parametrize(("window", "cap"), [(20, 2.0), (16, None), (33, 1.0), (None, 0.5)])
def test_kernels_of_tvm_on_a_cpu(window: int | None, cap: float | None) -> None:
    """Those for heads that ours are not for."""
    import tvm

    layout = make_layout(window, cap, dim=24)
    check(build_cache(layout, "llvm", tvm.target.Target(CPU)), layout)


@pytest.mark.parametrize(
    ("window", "cap", "dim"),
    [
        (20, 2.0, 32),
        *(pytest.param(*rest, marks=pytest.mark.full) for rest in ((16, None, 32), (33, 1.0, 64), (None, 0.5, 128))),
    ],
)
def test_kernels_of_tvm_on_a_gpu(window: int | None, cap: float | None, dim: int) -> None:
    layout = make_layout(window, cap, dim=dim)
    with compiling(optimize=False) as device:
        machine = build_cache(layout, "opencl", device.target)
    check(machine, layout, trees=True)
    assert {"batch_tree_attn_kernel", "tree_attn_paged_kv_kernel"} <= set(device.launches)
