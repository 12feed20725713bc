"""A decoder whose library returns what its linear layers are multiplied with, for statistics of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op, spec
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache

from llmbuild.models.decoder import Decoder
from llmbuild.models.spec import DecoderSpec
from llmbuild.quantization.layers import Kernels
from llmbuild.quantization.scheme import Scheme

TAPS = "linear_inputs"
"""The exported function: embeddings [1, s, hidden] and the cache to every distinct input, float32 [1, s, k], and the cache."""


@dataclass(slots=True)
class Tap:
    """A distinct input, and the weights that it is multiplied with."""

    x: Any
    weights: list[Any] = field(default_factory=list)


class Taps:
    """Kernels that note what plain weights are multiplied with, and leave the product to others."""

    activations: str | None = None

    def __init__(self, kernels: Kernels) -> None:
        self.packed_linear = kernels.packed_linear
        self._linear = kernels.linear
        self.taps: list[Tap] = []

    def linear(self, x: nn.Tensor, weight: nn.Tensor, out_dtype: str) -> nn.Tensor:
        tap = next((tap for tap in self.taps if tap.x._expr.same_as(x._expr)), None)
        if tap is None:
            tap = Tap(x)
            self.taps.append(tap)
        tap.weights.append(weight)
        return self._linear(x, weight, out_dtype)


class TappedDecoder(Decoder):
    """Has `embed` and `linear_inputs` only.  `inputs` are known once it is exported: for each result the number of its elements
    and the modules, in MLC's names, whose weights are multiplied with it."""

    def __init__(self, decoder: DecoderSpec, scheme: Scheme, kernels: Kernels) -> None:
        self._taps = Taps(kernels)
        super().__init__(decoder, scheme, self._taps)
        self.inputs: list[dict[str, Any]] = []

    def linear_inputs(self, input_embeds: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """See `TAPS`."""
        self._taps.taps.clear()
        self.get_logits(self.backbone(input_embeds, paged_kv_cache))
        names = {id(value): name.removesuffix(".weight") for name, value in self.named_parameters()}
        self.inputs = [
            {"size": int(tap.x.shape[-1]), "parameters": [names[id(weight)] for weight in tap.weights]}
            for tap in self._taps.taps
        ]
        return (*(op.astype(tap.x, "float32") for tap in self._taps.taps), paged_kv_cache)

    def export_spec(self) -> spec.ModuleSpec:
        """`embed`, and `linear_inputs` of one sequence."""
        sequence = spec.Tensor([1, "seq_len", self.decoder.hidden_size], self.dtype)
        methods = [
            self._method("embed", {"input_ids": spec.Tensor(["seq_len"], "int32")}),
            self._method(TAPS, {"input_embeds": sequence, "paged_kv_cache": spec.Object(object_type=PagedKVCache)}),
        ]
        return spec.ModuleSpec(self, [name for name, _ in methods], [method for _, method in methods])
