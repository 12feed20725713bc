"""Layers whose RoPE differs, where the layers apply it and not the cache: Gemma 3's form, against transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmbuild.models.frequencies import make_rope
from llmbuild.models.kv_cache import kv_cache_layout
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, MlpSpec, Names, NormSpec
from tests.helpers.generic_library import logits_of, tails
from tests.helpers.opencl import compiling, require
from tests.helpers.spec_library import SpecLibrary

VOCABULARY, HIDDEN, INNER, DIM = 160, 64, 96, 16
PROMPT = [int(token) for token in np.random.default_rng(5).integers(3, 150, 37)]
FOLLOWING = [7, 101, 11, 120]
KINDS = ("sliding_attention", "full_attention") * 2
ROPES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
}
ONE_SEQUENCE = ("embed", "prefill", "decode")


def gemma3() -> tuple[Any, DecoderSpec, dict[str, np.ndarray]]:
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(3)
    config = Gemma3TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=len(KINDS),
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=DIM,
        query_pre_attn_scalar=DIM,
        layer_types=list(KINDS),
        sliding_window=8,
        rope_parameters=ROPES,
        rms_norm_eps=1e-6,
        initializer_range=0.15,
        attn_implementation="eager",
    )
    model = Gemma3ForCausalLM(config).float().eval()
    norm = NormSpec("rms", 1e-6, offset=1.0)
    ropes = (make_rope(100.0, DIM), make_rope(10000.0, DIM, {"rope_type": "linear", "factor": 4.0}))
    blocks = [
        BlockSpec(
            AttentionSpec(4, 2, DIM, rope, qk_norm=norm, window=window), MlpSpec(INNER, "gelu_tanh"), *(norm,) * 4
        )
        for rope, window in zip(ropes, (8, None), strict=True)
    ]
    names = Names(
        after_attention="post_attention_layernorm",
        before_mlp="pre_feedforward_layernorm",
        after_mlp="post_feedforward_layernorm",
    )
    spec = DecoderSpec(
        VOCABULARY, HIDDEN, tuple(blocks * 2), norm, tied_head=True, embedding_scale=HIDDEN**0.5, names=names
    )
    return model, spec, {key: value.detach().numpy() for key, value in model.state_dict().items()}


def check(device: str, target: Any) -> None:
    model, spec, state = gemma3()
    assert kv_cache_layout(spec, "float32").rope is None
    library = SpecLibrary(spec, state, device, target, ONE_SEQUENCE)
    expected = logits_of(model, PROMPT + FOLLOWING)[len(PROMPT) - 1 :]
    tails(library.generate(PROMPT, FOLLOWING, chunk=16), expected, 2e-5)


def test_on_a_cpu() -> None:
    import tvm

    check("llvm", tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"}))


@pytest.mark.full
def test_on_opencl() -> None:
    require()
    with compiling(optimize=False) as device:
        check("opencl", device.target)
