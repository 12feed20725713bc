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
from llmbuild.models.parts.attention import Attention
from llmbuild.models.parts.mlp import MLP
from llmbuild.models.parts.norm import build_norm
from llmbuild.models.spec import DecoderSpec
from llmbuild.quantization.layers import Embedding, Kernels, Linear, take
from llmbuild.quantization.scheme import Scheme


class Layer(nn.Module):  # type: ignore[misc]
    """A block: norm, attention, norm, MLP, with sequential or parallel residuals."""

    def __init__(self, decoder: DecoderSpec, scheme: Scheme, kernels: Kernels) -> None:
        super().__init__()
        self.decoder = decoder
        names, size, dtype = decoder.names, decoder.hidden_size, scheme.dtype
        norms = {name: build_norm(decoder.norm, size, dtype) for name in (names.attention_norm, names.mlp_norm)}
        inner = {
            decoder.attention.name: Attention(decoder.attention, size, scheme, kernels),
            decoder.mlp.name: MLP(decoder.mlp, size, scheme, kernels),
        }
        for name, module in (norms | inner if names.norms_first else inner | norms).items():
            setattr(self, name, module)

    def forward(self, x: nn.Tensor, cache: PagedKVCache, layer: int) -> nn.Tensor:
        """[b, s, hidden] to [b, s, hidden]."""
        names = self.decoder.names
        attention, mlp = getattr(self, self.decoder.attention.name), getattr(self, self.decoder.mlp.name)
        attention_norm, mlp_norm = getattr(self, names.attention_norm), getattr(self, names.mlp_norm)
        attended = attention(attention_norm(x), cache, layer)
        if self.decoder.residual == "parallel":
            return mlp(mlp_norm(x)) + attended + x
        x = attended + x
        return mlp(mlp_norm(x)) + x


class Backbone(nn.Module):  # type: ignore[misc]
    """Embedding, layers and final norm."""

    def __init__(self, decoder: DecoderSpec, scheme: Scheme, kernels: Kernels) -> None:
        super().__init__()
        names = decoder.names
        self.names = names
        setattr(self, names.embedding, Embedding(decoder.vocab_size, decoder.hidden_size, scheme, kernels))
        layers = nn.ModuleList([Layer(decoder, scheme, kernels) for _ in range(decoder.num_layers)])
        setattr(self, names.layers, layers)
        setattr(self, names.final_norm, build_norm(decoder.norm, decoder.hidden_size, scheme.dtype))

    def forward(self, x: nn.Tensor, cache: PagedKVCache) -> nn.Tensor:
        """Embeddings [b, s, hidden] to the normalized last hidden states [b, s, hidden]."""
        for index, layer in enumerate(getattr(self, self.names.layers)):
            x = layer(x, cache, index)
        return getattr(self, self.names.final_norm)(x)


class Decoder(nn.Module):  # type: ignore[misc]
    """A language model with the methods of a model library; `kv_cache` describes the cache that they expect."""

    def __init__(self, decoder: DecoderSpec, scheme: Scheme, kernels: Kernels) -> None:
        super().__init__()
        self.decoder = decoder
        self.dtype = scheme.dtype
        self.kv_cache = kv_cache_layout(decoder, scheme.dtype)
        names = decoder.names
        setattr(self, names.backbone, Backbone(decoder, scheme, kernels))
        if not decoder.tied_head:
            head = Linear(
                decoder.hidden_size,
                decoder.vocab_size,
                scheme,
                kernels,
                out_dtype="float32",
                packed=scheme.quantized and scheme.quantize_head,
            )
            setattr(self, names.head, head)

    @property
    def backbone(self) -> Backbone:
        backbone: Backbone = getattr(self, self.decoder.names.backbone)
        return backbone

    @property
    def embedding(self) -> Embedding:
        embedding: Embedding = getattr(self.backbone, self.decoder.names.embedding)
        return embedding

    def embed(self, input_ids: nn.Tensor) -> nn.Tensor:
        """int32 [s] to [s, hidden]."""
        return self.embedding(input_ids)

    def get_logits(self, hidden_states: nn.Tensor) -> nn.Tensor:
        """[s, hidden] or [b, s, hidden] to float32 [.., vocabulary]."""
        head = self.embedding.logits if self.decoder.tied_head else getattr(self, self.decoder.names.head)
        return head(hidden_states)

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
        return self.get_logits(self.backbone(input_embeds, paged_kv_cache)), paged_kv_cache

    def batch_verify(self, input_embeds: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """[1, s, hidden] to float32 [1, s, vocabulary] at every position, and the cache."""
        return self.get_logits(self.backbone(input_embeds, paged_kv_cache)), paged_kv_cache

    def last_hidden_states(self, input_embeds: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """The five `*_to_last_hidden_states`: [b, s, hidden] to hidden states of the same shape, and the cache."""
        return self.backbone(input_embeds, paged_kv_cache), paged_kv_cache

    def export_spec(self) -> spec.ModuleSpec:
        """The exported methods with their argument shapes; "s" and "b" become symbolic dimensions."""
        hidden, dtype = self.decoder.hidden_size, self.dtype
        cache = spec.Object(object_type=PagedKVCache)
        one_sequence = spec.Tensor([1, "seq_len", hidden], dtype)
        one_token = spec.Tensor([1, 1, hidden], dtype)
        token_each = spec.Tensor(["batch_size", 1, hidden], dtype)
        rows = spec.Tensor(["seq_len", hidden], dtype)
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
            methods.append(
                self._method(f"{name}_to_last_hidden_states", hidden_arguments, method=self.last_hidden_states)
            )
        return spec.ModuleSpec(self, [name for name, _ in methods], [method for _, method in methods])

    def _method(
        self, name: str, arguments: dict[str, Any], *, packed: bool = True, method: Any = None
    ) -> tuple[str, spec.MethodSpec]:
        method = getattr(self, name) if method is None else method
        mode = "packed" if packed else "none"
        return name, spec.MethodSpec(method, list(arguments), list(arguments.values()), mode, "none")


def _last_position(x: nn.Tensor) -> nn.Tensor:
    """[b, s, h] to [b, 1, h], where s is symbolic."""

    def last(x: te.Tensor) -> te.Tensor:
        b, s, h = x.shape
        return te.compute((b, 1, h), lambda i, _, k: x[i, s - 1, k], name="last_position")

    return op.tensor_expr_op(last, "last_position", [x])
