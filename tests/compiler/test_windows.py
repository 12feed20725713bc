"""Windows by positions and soft caps in the whole KV cache: chunks, batches, rollbacks and forks."""

from __future__ import annotations

import pytest

from tests.helpers.cache_scenarios import build_cache, make_layout, worst_errors


@pytest.mark.parametrize(
    ("window", "cap"),
    [(20, 2.0), *(pytest.param(*rest, marks=pytest.mark.full) for rest in ((16, None), (33, 1.0), (None, 0.5)))],
)
def test_our_kernels_on_a_cpu(window: int | None, cap: float | None) -> None:
    import tvm

    layout = make_layout(window, cap)
    machine = build_cache(layout, "llvm", tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"}))
    for name, errors in worst_errors(machine, layout).items():
        assert max(errors) < 5e-6, (name, errors)
