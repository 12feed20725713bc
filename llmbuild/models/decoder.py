"""The TVM module of a decoder-only transformer, built from its `DecoderSpec`.

Modules are declared in the order of `llmbuild.models.parameters`, and the exported methods, their arguments and results
are those that MLC's runtimes call (formats: the model library).
"""

from __future__ import annotations

from typing import Any

from tvm import te
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op, spec
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache

from llmbuild.models.kv_cache import kv_cache_layout
from llmbuild.models.parts.attention import Attention, Step
from llmbuild.models.parts.mlp import MLP
from llmbuild.models.parts.modules import at, place, scaled
from llmbuild.models.parts.norm import build_norm
from llmbuild.models.spec import BlockSpec, DecoderSpec, Slot
from llmbuild.quantization.layers import Embedding, Kernels, Linear, take
from llmbuild.quantization.scheme import Scheme

COPIES = {
    "batch_prefill_to_last_hidden_states": "prefill_to_last_hidden_states",
    "batch_verify_to_last_hidden_states": "prefill_to_last_hidden_states",
}
"""Functions of a library that are a method's under another name: they are not among the methods."""


class Layer(nn.Module):  # type: ignore[misc]
    """A block, the module `name`: norms, attention and MLP in the order of the parameters."""

    def __init__(self, block: BlockSpec, decoder: DecoderSpec, scheme: Scheme, kernels: Kernels, name: str) -> None:
        super().__init__()
        self.block, self.names = block, decoder.names
        size = decoder.hidden_size
        for slot in decoder.names.order:
            norm = block.norm(slot)
            if slot == "attention":
                place(self, block.attention.name, Attention(block.attention, size, scheme, kernels, name))
            elif slot == "mlp":
                place(self, block.mlp.name, MLP(block.mlp, size, scheme, kernels, name))
            elif norm is not None:
                place(self, getattr(decoder.names, slot), build_norm(norm, size, scheme.dtype))

    def forward(self, x: nn.Tensor, step: Step, layer: int) -> nn.Tensor:
        """[b, s, hidden] to [b, s, hidden]."""
        block = self.block
        normed = self._normed("before_attention", x)
        attended = self._normed("after_attention", at(self, block.attention.name)(normed, step, layer))
        attended = scaled(attended, block.residual_scale)
        if block.residual == "parallel":
            inner = normed if block.before_mlp is None else self._normed("before_mlp", x)
        else:
            x = attended + x
            inner = self._normed("before_mlp", x)
        out = scaled(self._normed("after_mlp", at(self, block.mlp.name)(inner)), block.residual_scale)
        return out + attended + x if block.residual == "parallel" else out + x

    def _normed(self, slot: Slot, x: nn.Tensor) -> nn.Tensor:
        return x if self.block.norm(slot) is None else at(self, getattr(self.names, slot))(x)


class Decoder(nn.Module):  # type: ignore[misc]
    """A language model with the methods of a model library; `kv_cache` describes the cache that they expect."""

    def __init__(self, decoder: DecoderSpec, scheme: Scheme, kernels: Kernels) -> None:
        super().__init__()
        self.decoder = decoder
        self.dtype = scheme.dtype
        self.kv_cache = kv_cache_layout(decoder, scheme.dtype)
        names, size = decoder.names, decoder.hidden_size
        own = scheme.of(names.embedding) if decoder.has_head else scheme.of(names.embedding, names.head)
        place(self, names.embedding, Embedding(decoder.vocab_size, size, own, kernels))
        if decoder.positions:
            rows = decoder.positions + decoder.positions_offset
            place(self, names.positions, Embedding(rows, size, scheme.of(names.positions), kernels))
        layers = [
            Layer(block, decoder, scheme, kernels, f"{names.layers}.{index}")
            for index, block in enumerate(decoder.blocks)
        ]
        place(self, names.layers, nn.ModuleList(layers))
        place(self, names.final_norm, build_norm(decoder.final_norm, size, scheme.dtype))
        if decoder.has_head:
            own = scheme.of(names.head)
            head = Linear(
                size,
                decoder.vocab_size,
                own,
                kernels,
                bias=decoder.head_bias,
                out_dtype="float32",
                bias_dtype=scheme.dtype,
                packed=own.quantized and own.quantize_head,
            )
            place(self, names.head, head)

    @property
    def embedding(self) -> Embedding:
        embedding: Embedding = at(self, self.decoder.names.embedding)
        return embedding

    def backbone(self, x: nn.Tensor, cache: PagedKVCache) -> nn.Tensor:
        """Embeddings [b, s, hidden] to the normalized last hidden states [b, s, hidden]."""
        decoder = self.decoder
        step = Step(cache, x.shape[0] * x.shape[1], rotates=self.kv_cache.rope is not None)
        x = scaled(x, decoder.embedding_scale)
        if decoder.positions:
            rows = step.positions + decoder.positions_offset if decoder.positions_offset else step.positions
            x = x + op.reshape(at(self, decoder.names.positions)(rows), x.shape)
        for index, layer in enumerate(at(self, decoder.names.layers)):
            x = layer(x, step, index)
        return at(self, decoder.names.final_norm)(x)

    def embed(self, input_ids: nn.Tensor) -> nn.Tensor:
        """int32 [s] to [s, hidden]."""
        return self.embedding(input_ids)

    def get_logits(self, hidden_states: nn.Tensor) -> nn.Tensor:
        """[s, hidden] or [b, s, hidden] to float32 [.., vocabulary]."""
        decoder = self.decoder
        head = at(self, decoder.names.head) if decoder.has_head else self.embedding.logits
        logits = scaled(head(hidden_states), decoder.logit_scale)
        cap = decoder.logit_softcap
        return logits if cap is None else op.tanh(logits / cap) * cap

    def batch_select_last_hidden_states(self, hidden_states: nn.Tensor, logit_positions: nn.Tensor) -> nn.Tensor:
        """Rows of [s, hidden] at int32 [b] to [b, hidden]."""
        return take(hidden_states, logit_positions, axis=0)

    def prefill(self, input_embed: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """[1, s, hidden] to the last position's logits float32 [1, 1, vocabulary], and the cache."""
        return self.get_logits(_last_position(self.backbone(input_embed, paged_kv_cache))), paged_kv_cache

    def decode(self, input_embed: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """[1, 1, hidden] to float32 [1, 1, vocabulary], and the cache."""
        return self.get_logits(self.backbone(input_embed, paged_kv_cache)), paged_kv_cache

    def batch_prefill(self, input_embeds: nn.Tensor, logit_positions: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """[1, s, hidden], the sequences one after another, to float32 [1, b, vocabulary] at the int32 positions [b]."""
        hidden = take(self.backbone(input_embeds, paged_kv_cache), logit_positions, axis=1)
        return self.get_logits(hidden), paged_kv_cache

    def batch_decode(self, input_embeds: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """[b, 1, hidden] to float32 [b, 1, vocabulary], and the cache."""
        logits = self.get_logits(self.backbone(_in_one_sequence(input_embeds), paged_kv_cache))
        return _of_one_token(logits), paged_kv_cache

    def batch_verify(self, input_embeds: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """[1, s, hidden] to float32 [1, s, vocabulary] at every position, and the cache."""
        return self.get_logits(self.backbone(input_embeds, paged_kv_cache)), paged_kv_cache

    def last_hidden_states(self, input_embeds: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """`*_to_last_hidden_states`: [1, s, hidden] to hidden states of the same shape, and the cache."""
        return self.backbone(input_embeds, paged_kv_cache), paged_kv_cache

    def batch_decode_to_last_hidden_states(self, input_embeds: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """[b, 1, hidden] to hidden states of the same shape, and the cache."""
        return _of_one_token(self.backbone(_in_one_sequence(input_embeds), paged_kv_cache)), paged_kv_cache

    def export_spec(self) -> spec.ModuleSpec:
        """The exported methods, without the COPIES, with their argument shapes; "s" and "b" become symbolic dimensions."""
        size, dtype = self.decoder.hidden_size, self.dtype
        cache = spec.Object(object_type=PagedKVCache)
        one_sequence = spec.Tensor([1, "seq_len", size], dtype)
        one_token = spec.Tensor([1, 1, size], dtype)
        token_each = spec.Tensor(["batch_size", 1, size], dtype)
        rows = spec.Tensor(["seq_len", size], dtype)
        positions = spec.Tensor(["batch_size"], "int32")
        forward: dict[str, dict[str, Any]] = {
            "prefill": {"input_embed": one_sequence},
            "decode": {"input_embed": one_token},
            "batch_prefill": {"input_embeds": one_sequence, "logit_positions": positions},
            "batch_decode": {"input_embeds": token_each},
            "batch_verify": {"input_embeds": one_sequence},
        }
        methods = [
            self._method("embed", {"input_ids": spec.Tensor(["seq_len"], "int32")}),
            self._method("get_logits", {"hidden_states": rows}),
            self._method(
                "batch_select_last_hidden_states", {"hidden_states": rows, "logit_positions": positions}, packed=False
            ),
        ]
        for name, arguments in forward.items():
            methods.append(self._method(name, {**arguments, "paged_kv_cache": cache}))
            first = next(iter(arguments.items()))
            hidden_arguments = {first[0]: first[1], "paged_kv_cache": cache}
            hidden = f"{name}_to_last_hidden_states"
            if hidden not in COPIES:
                method = getattr(self, hidden, self.last_hidden_states)
                methods.append(self._method(hidden, hidden_arguments, method=method))
        return spec.ModuleSpec(self, [name for name, _ in methods], [method for _, method in methods])

    def _method(
        self, name: str, arguments: dict[str, Any], *, packed: bool = True, method: Any = None
    ) -> tuple[str, spec.MethodSpec]:
        method = getattr(self, name) if method is None else method
        mode = "packed" if packed else "none"
        return name, spec.MethodSpec(method, list(arguments), list(arguments.values()), mode, "none")


def _in_one_sequence(x: nn.Tensor) -> nn.Tensor:
    """[b, 1, h] to [1, b, h]: the shape in which other methods compute as many rows, so that they share their kernels."""
    return op.reshape(x, (1, x.shape[0], x.shape[2]))


def _of_one_token(x: nn.Tensor) -> nn.Tensor:
    """[1, b, h] to [b, 1, h]."""
    return op.reshape(x, (x.shape[1], 1, x.shape[2]))


def _last_position(x: nn.Tensor) -> nn.Tensor:
    """[b, s, h] to [b, 1, h], where s is symbolic."""

    def last(x: te.Tensor) -> te.Tensor:
        b, s, h = x.shape
        return te.compute((b, 1, h), lambda i, _, k: x[i, s - 1, k], name="last_position")

    return op.tensor_expr_op(last, "last_position", [x])
