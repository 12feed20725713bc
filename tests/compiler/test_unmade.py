"""Kernels that nothing will use are not made, and the module is the one that it was with them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from llmbuild.models.frequencies import make_rope
from llmbuild.models.kv_cache import KVCacheLayout
from tests.helpers.gpu_library import TARGETS

CPU = {"device": "cpu", "host": {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64-v3"}}


@pytest.mark.parametrize("window", [None, 8], ids=["plain", "window"])
@pytest.mark.parametrize("name", ["cpu", "metal", "webgpu", "cuda"])
def test_the_module_is_the_same(name: str, window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import tvm
    import tvm_ffi

    from llmbuild.compiler.lower import resolve_target
    from llmbuild.compiler.passes import kv_cache

    device, target = resolve_target(CPU if name == "cpu" else TARGETS[name])
    layout = KVCacheLayout(2, 4, 2, 64, "float16", make_rope(10000.0, 64), window=window)
    made: list[str] = []

    def attached() -> Any:
        module = kv_cache.AttachKVCache(layout, target, device.kernels().attention)(tvm.IRModule())
        made[:] = sorted(variable.name_hint for variable in module.get_global_vars())
        return module

    spared = attached()
    names = list(made)
    every = kv_cache.unmade
    monkeypatch.setattr(kv_cache, "unmade", lambda kernels=None: every() if kernels is None else nullcontext())
    whole = attached()
    assert names == made
    # The function that creates the cache refers to the others by variables of its own module.
    assert str(spared[kv_cache.NAME]) == str(whole[kv_cache.NAME])
    assert all(tvm_ffi.structural_equal(spared[one], whole[one]) for one in names if one != kv_cache.NAME)


def test_a_rolling_cache_keeps_its_kernels() -> None:
    import tvm

    from llmbuild.compiler.lower import resolve_target
    from llmbuild.compiler.passes.kv_cache import ROLLING, AttachKVCache

    device, target = resolve_target(TARGETS["metal"])
    layout = KVCacheLayout(2, 4, 2, 64, "float16", make_rope(10000.0, 64), rolling=True)
    module = AttachKVCache(layout, target, device.kernels().attention)(tvm.IRModule())
    kernels = [module[variable] for variable in module.get_global_vars() if variable.name_hint in ROLLING]
    assert len(kernels) == 2 and all(len(kernel.params) > 5 for kernel in kernels)
