"""RoPE inside of a layer, against complex numbers."""

from __future__ import annotations

import numpy as np
import pytest

from llmbuild.models.frequencies import make_rope
from llmbuild.models.spec import RopeSpec


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_some_heads_are_turned(dtype: str, interleaved: bool) -> None:
    """Queries and keys by the first part of each head, with a factor; values and the rest stay."""
    import tvm
    from tvm import relax
    from tvm.relax.frontend import nn

    from llmbuild.models.parts.rotary import rotate, turns

    rope = RopeSpec(12, make_rope(100.0, 12).frequencies, 1.25, interleaved)

    class Layer(nn.Module):  # type: ignore[misc]
        def forward(self, qkv: nn.Tensor, positions: nn.Tensor) -> nn.Tensor:
            return rotate(qkv, turns(positions, rope), rope, 4)

    arguments = {"qkv": nn.spec.Tensor(["n", 6, 16], dtype), "positions": nn.spec.Tensor(["n"], "int32")}
    module = Layer().export_tvm({"forward": arguments})[0]
    vm = relax.VirtualMachine(relax.build(module, target="llvm"), tvm.cpu())
    qkv = np.random.default_rng(1).standard_normal((5, 6, 16)).astype(dtype)
    positions = np.array([0, 3, 50, 7, 1], np.int32)
    found = vm["forward"](tvm.runtime.tensor(qkv), tvm.runtime.tensor(positions)).numpy()

    wanted = qkv.astype(np.float64)
    x = wanted[:, :4, :12]
    pairs = x[..., 0::2] + 1j * x[..., 1::2] if interleaved else x[..., :6] + 1j * x[..., 6:]
    pairs = 1.25 * pairs * np.exp(1j * positions[:, None, None] * np.array(rope.frequencies))
    wanted[:, :4, :12] = np.stack([pairs.real, pairs.imag], axis=-1 if interleaved else -2).reshape(x.shape)
    np.testing.assert_allclose(found, wanted, atol=2e-3 if dtype == "float16" else 2e-5)
    np.testing.assert_array_equal(found[:, 4:], qkv[:, 4:])
