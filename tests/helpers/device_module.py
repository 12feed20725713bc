"""A small module for a device: a product of float16 matrices with elementwise work around it, and a softmax."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def lowered(out: Path, compile_part: Mapping[str, Any], size: int = 128, kept: Any = None) -> Path:
    """The objects of the module in `out`, made as `lower` makes a model's."""
    from tvm import relax
    from tvm.relax.frontend import nn
    from tvm.s_tir import dlight

    from llmbuild.compiler.codegen import write_objects
    from llmbuild.compiler.devices import prepare
    from llmbuild.compiler.lower import resolve_target
    from llmbuild.compiler.reuse import Reuse

    class Model(nn.Module):
        def __init__(self) -> None:
            self.weight = nn.Parameter((size, size), "float16")

        def forward(self, x: nn.Tensor) -> nn.Tensor:
            hidden = nn.op.matmul(x, nn.op.permute_dims(self.weight))
            return nn.op.softmax(nn.op.silu(nn.op.exp(hidden)) + hidden)

    device, target = resolve_target(compile_part)
    module = Model().export_tvm({"forward": {"x": nn.spec.Tensor([1, "n", size], "float16")}})[0]
    out.mkdir(parents=True, exist_ok=True)
    with prepare(compile_part), target:
        rules = (dlight.gpu.Matmul(), dlight.gpu.Reduction(), dlight.gpu.GeneralReduction(), dlight.gpu.Fallback())
        module = dlight.ApplyDefaultSchedule(*rules)(relax.transform.LegalizeOps()(module))
        module = relax.get_default_pipeline(target)(module)
        write_objects(module, target, device.beside_any_host(target), Reuse(kept, compile_part, compile_part), out)
    return out
