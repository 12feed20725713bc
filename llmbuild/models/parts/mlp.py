"""The feed-forward part of a block: gated or plain, with its activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from llmbuild.models.parts.modules import at, place
from llmbuild.models.spec import Activation, MlpSpec
from llmbuild.quantization.layers import Kernels, Linear
from llmbuild.quantization.scheme import Scheme


def _gelu_tanh(x: nn.Tensor) -> nn.Tensor:
    return op.gelu(x, approximate="tanh")


def _relu_squared(x: nn.Tensor) -> nn.Tensor:
    return op.square(op.relu(x))


ACTIVATE: Mapping[Activation, Callable[[nn.Tensor], nn.Tensor]] = {
    "silu": op.silu,
    "gelu": op.gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": op.relu,
    "relu2": _relu_squared,
}


class MLP(nn.Module):  # type: ignore[misc]
    """down(act(gate) * up), or down(act(up)) where not gated."""

    def __init__(self, spec: MlpSpec, hidden_size: int, scheme: Scheme, kernels: Kernels, layer: str) -> None:
        super().__init__()
        self.spec = spec
        self.dtype = scheme.dtype
        out = spec.out_dtype
        for name in spec.up_modules:
            own = scheme.of(f"{layer}.{spec.name}.{name}")
            place(self, name, Linear(hidden_size, spec.up_features, own, kernels, bias=spec.bias, out_dtype=out))
        own = scheme.of(f"{layer}.{spec.name}.{spec.down}")
        place(self, spec.down, Linear(spec.intermediate, hidden_size, own, kernels, bias=spec.bias, out_dtype=out))

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """[b, s, hidden] to [b, s, hidden], both in the compute dtype."""
        inner, *other = [at(self, name)(x) for name in self.spec.up_modules]
        activate = ACTIVATE[self.spec.activation]
        if self.spec.gated:
            gate, up = op.split(inner, 2, axis=-1) if self.spec.joined else (inner, *other)
            if self.spec.gate_last:
                gate, up = up, gate
            inner = activate(gate) * up
        else:
            inner = activate(inner)
        return self._compute_dtype(at(self, self.spec.down)(self._compute_dtype(inner)))

    def _compute_dtype(self, x: nn.Tensor) -> nn.Tensor:
        return x if x.dtype == self.dtype else op.astype(x, self.dtype)
