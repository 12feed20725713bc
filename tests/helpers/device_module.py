"""A small module for a device: a product of float16 matrices with elementwise work around it, and a softmax."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def lowered(out: Path, compile_part: Mapping[str, Any], size: int = 128) -> Path:
    """lib0.o and devc.o of the module in `out`, made as `lower` makes a model's."""
    from tvm import relax
    from tvm.relax.frontend import nn
    from tvm.s_tir import dlight

    from llmbuild.compiler.devices import prepare
    from llmbuild.compiler.lower import _export, resolve_target

    class Model(nn.Module):
        def __init__(self) -> None:
            self.weight = nn.Parameter((size, size), "float16")

        def forward(self, x: nn.Tensor) -> nn.Tensor:
            hidden = nn.op.matmul(x, nn.op.permute_dims(self.weight))
            return nn.op.softmax(nn.op.silu(nn.op.exp(hidden)) + hidden)

    _, target = resolve_target(compile_part)
    module = Model().export_tvm({"forward": {"x": nn.spec.Tensor([1, "n", size], "float16")}})[0]
    out.mkdir(parents=True, exist_ok=True)
    with prepare(compile_part):
        with target:
            rules = (dlight.gpu.Matmul(), dlight.gpu.Reduction(), dlight.gpu.GeneralReduction(), dlight.gpu.Fallback())
            module = dlight.ApplyDefaultSchedule(*rules)(relax.transform.LegalizeOps()(module))
            executable = relax.build(module, target=target)
        _export(executable, out)
    return out
