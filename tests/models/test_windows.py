"""Decoders with windows by layer and soft caps against transformers: chunks shorter and longer than the window, a batch."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llmbuild.models.frequencies import make_rope
from llmbuild.models.kv_cache import kv_cache_layout
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, MlpSpec, Names, NormSpec
from tests.helpers.generic_library import logits_of, tails
from tests.helpers.opencl import compiling
from tests.helpers.spec_library import SpecLibrary

WINDOW, VOCABULARY, HIDDEN, INNER = 8, 160, 64, 96
PROMPT = [int(token) for token in np.random.default_rng(5).integers(3, 150, 37)]
OTHER = PROMPT[20:31]
FOLLOWING = [7, 101, 11, 120, 3, 64, 9, 33]
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 256,
    "attn_implementation": "eager",
    "initializer_range": 0.15,
}


def mistral(dim: int) -> tuple[Any, DecoderSpec]:
    """Every layer has the window."""
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(**SIZES, head_dim=dim, sliding_window=WINDOW, rms_norm_eps=1e-5, tie_word_embeddings=False)
    norm = NormSpec("rms", 1e-5)
    block = BlockSpec(AttentionSpec(4, 2, dim, make_rope(10000.0, dim), window=WINDOW), MlpSpec(INNER), norm, norm)
    return MistralForCausalLM(config), DecoderSpec(VOCABULARY, HIDDEN, (block, block), norm)


def gemma2(dim: int) -> tuple[Any, DecoderSpec]:
    """Every other layer has the window; scores and logits are capped, and more besides."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        **SIZES,
        head_dim=dim,
        sliding_window=WINDOW,
        query_pre_attn_scalar=20,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=5.0,
        rms_norm_eps=1e-6,
    )
    norm = NormSpec("rms", 1e-6, offset=1.0)

    def block(window: int | None) -> BlockSpec:
        attention = AttentionSpec(4, 2, dim, make_rope(10000.0, dim), scale=20**-0.5, softcap=2.0, window=window)
        return BlockSpec(attention, MlpSpec(INNER, "gelu_tanh"), norm, norm, norm, norm)

    names = Names(
        after_attention="post_attention_layernorm",
        before_mlp="pre_feedforward_layernorm",
        after_mlp="post_feedforward_layernorm",
    )
    spec = DecoderSpec(
        VOCABULARY,
        HIDDEN,
        (block(WINDOW), block(None)),
        norm,
        tied_head=True,
        embedding_scale=HIDDEN**0.5,
        logit_softcap=5.0,
        names=names,
    )
    return Gemma2ForCausalLM(config), spec


@functools.cache
def reference(name: str, dim: int) -> tuple[Any, DecoderSpec, dict[str, np.ndarray]]:
    import torch

    torch.manual_seed(3)
    model, spec = {"mistral": mistral, "gemma2": gemma2}[name](dim)
    model = model.float().eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "norm" in key:
                value.add_(torch.randn_like(value) * 0.2)
    return model, spec, {key: value.detach().numpy() for key, value in model.state_dict().items()}


def test_a_rolling_cache_has_no_windows_by_layer() -> None:
    _, spec = gemma2(16)
    assert kv_cache_layout(spec, "float32").window == WINDOW
    with pytest.raises(ValueError, match="rolling"):
        kv_cache_layout(replace(spec, rolling=True), "float32")


def check(library: SpecLibrary, model: Any) -> None:
    expected = logits_of(model, PROMPT + FOLLOWING)
    for chunk in (None, 5):
        tails(library.generate(PROMPT, FOLLOWING, chunk=chunk), expected[len(PROMPT) - 1 :], 2e-5)
    library.start(sequences=2)
    ends = [len(PROMPT) - 1, len(PROMPT) + len(OTHER) - 1]
    found = [library.forward("batch_prefill", PROMPT + OTHER, [len(PROMPT), len(OTHER)], positions=ends)[0]]
    others = FOLLOWING[::-1]
    for pair in zip(FOLLOWING, others, strict=True):
        found.append(library.forward("batch_decode", pair, (1, 1))[:, 0])
    tails(np.stack([rows[0] for rows in found]), expected[len(PROMPT) - 1 :], 2e-5)
    tails(np.stack([rows[1] for rows in found]), logits_of(model, OTHER + others)[len(OTHER) - 1 :], 2e-5)


@pytest.mark.parametrize(
    ("name", "dim"),
    [("gemma2", 24), *(pytest.param(*rest, marks=pytest.mark.full) for rest in (("mistral", 16), ("gemma2", 16)))],
)
def test_on_a_cpu(name: str, dim: int) -> None:
    """Heads of 16 have kernels of ours, those of 24 TVM's."""
    import tvm

    model, spec, state = reference(name, dim)
    check(SpecLibrary(spec, state, "llvm", tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"})), model)


@pytest.mark.full
@pytest.mark.parametrize("name", ["mistral", "gemma2"])
def test_on_a_gpu(name: str) -> None:
    model, spec, state = reference(name, 32)
    with compiling(optimize=False) as device:
        library = SpecLibrary(spec, state, "opencl", device.target)
    check(library, model)
