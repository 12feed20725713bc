"""GGUF's tensor names and layouts, turned back into those of Hugging Face.

Source: what llama.cpp's convert_hf_to_gguf.py does to each architecture, inverted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.errors import InputError

if TYPE_CHECKING:
    import numpy as np

_LLAMA_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LLAMA_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NEOX_TOP = {"token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm", "output": "embed_out"}
_NEOX_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "attention.query_key_value",
    "attn_output": "attention.dense",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}
_UNUSED = re.compile(r"rope_freqs\.weight|blk\.\d+\.attn_rot_embd\.weight")
"""Rotary frequencies: part of the configuration, not of the weights."""

_NAME = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)")


@dataclass(frozen=True, slots=True)
class Restored:
    """The origin of a Hugging Face tensor: a GGUF tensor and the inverse of the converter's change, if any."""

    source: str
    restore: Callable[[np.ndarray], np.ndarray] | None


def restored_tensors(
    architecture: str, names: tuple[str, ...], *, heads: int, key_value_heads: int, where: Path
) -> Mapping[str, Restored]:
    """By Hugging Face names, in the order of `names` (GGUF's).  Raises InputError for a tensor the architecture lacks."""
    neox = architecture == "gptneox"
    top, layer, prefix = (
        (_NEOX_TOP, _NEOX_LAYER, "gpt_neox.layers") if neox else (_LLAMA_TOP, _LLAMA_LAYER, "model.layers")
    )
    result: dict[str, Restored] = {}
    for name in names:
        if _UNUSED.fullmatch(name):
            continue
        match = _NAME.fullmatch(name)
        part = None if match is None else (top if match[1] is None else layer).get(match[2])
        if match is None or part is None:
            raise InputError(
                f"tensor {name!r} is not one of architecture {architecture}",
                where=str(where),
                why="the file uses a variant of the architecture that llmbuild does not know",
                fix="use the original weights of the model",
            )
        full = f"{part}.{match[3]}" if match[1] is None else f"{prefix}.{match[1]}.{part}.{match[3]}"
        restore: Callable[[np.ndarray], np.ndarray] | None = None
        if architecture == "llama" and match[2] in ("attn_q", "attn_k"):
            restore = _RotaryRows(heads if match[2] == "attn_q" else key_value_heads)
        elif neox and match[2] == "attn_qkv":
            restore = _InterleavedHeads(heads)
        result[full] = Restored(name, restore)
    return result


@dataclass(frozen=True, slots=True)
class _RotaryRows:
    """llama.cpp rotates neighbouring rows of a head, Hugging Face the first half with the second: [h, d/2, 2] -> [h, 2, d/2]."""

    heads: int

    def __call__(self, value: np.ndarray) -> np.ndarray:
        rows = value.reshape(self.heads, -1, 2, *value.shape[1:])
        return rows.swapaxes(1, 2).reshape(value.shape)


@dataclass(frozen=True, slots=True)
class _InterleavedHeads:
    """GGUF stacks all q, all k, all v; GPT-NeoX has q, k and v head by head: [3, h, d] -> [h, 3, d]."""

    heads: int

    def __call__(self, value: np.ndarray) -> np.ndarray:
        rows = value.reshape(3, self.heads, -1, *value.shape[1:])
        return rows.swapaxes(0, 1).reshape(value.shape)
