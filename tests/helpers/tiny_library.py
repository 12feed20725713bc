"""The chat configuration of a tiny model, and its library built by the lower and link code."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbuild.models.family import Overrides

HOST = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64-v3"}
TARGET = {"device": "cpu", "host": HOST}

TINY_LLAMA: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 160,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
}


def chat_config(
    source: Mapping[str, Any] = TINY_LLAMA, quantization: str = "q4f32_1", overrides: Overrides | None = None
) -> dict[str, Any]:
    """The fields of mlc-chat-config.json that compilation reads, as the config task writes them."""
    from llmbuild.models.registry import family, infer_model_type

    model_type = infer_model_type(source)
    config = family(model_type).configure(source, overrides or Overrides())
    names = ("vocab_size", "context_window_size", "sliding_window_size", "prefill_chunk_size", "attention_sink_size")
    return {
        "model_type": model_type,
        "quantization": quantization,
        "model_config": dict(config.to_json()),
        **{name: getattr(config, name) for name in names},
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "active_vocab_size": config.vocab_size - 10,
        "model_task": "chat",
    }


def build_objects(out: Path, scheme: str = "q4f32_1", *, system_lib: bool = False, prefix: str | None = None) -> Any:
    """The objects and metadata.json of the tiny model in `out`; returns the metadata."""
    from llmbuild.compiler.lower import lower
    from llmbuild.quantization.scheme import SCHEMES

    out.mkdir(parents=True, exist_ok=True)
    return lower(
        chat_config(quantization=scheme),
        SCHEMES[scheme],
        {},
        TARGET,
        system_lib=system_lib,
        system_lib_prefix=prefix,
        out=out,
    )


def link_shared(objects: Path, out: Path) -> None:
    """A shared object from the objects in a directory."""
    from llmbuild import linkers

    with tempfile.TemporaryDirectory() as scratch:
        linkers.link_objects({}, "so", sorted(objects.glob("*.o")), out, scratch=Path(scratch))
