"""Makers of tiny random Hugging Face checkpoints, one a variant of an architecture that llmbuild supports.

The files look as published checkpoints do: `config.json` in the classic spelling (`rope_theta`, `rope_scaling`), a
`generation_config.json`, a working `tokenizer.json` with its `tokenizer_config.json`, and weights as safetensors or
as a torch pickle, whole or in shards with an index.  The same arguments give the same weights on every machine.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Any

HIDDEN = 128
VOCAB = 320
"""Rows of the embedding; the tokenizers have fewer tokens, as in many published models."""

_DECODER: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 352,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": VOCAB,
    "max_position_embeddings": 256,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_LLAMA: dict[str, Any] = {
    **_DECODER,
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
}
_LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_LLAMA3: dict[str, Any] = {
    **_LLAMA,
    "num_key_value_heads": 2,
    "rope_theta": 500000.0,
    "rope_scaling": _LLAMA3_SCALING,
}
_NEOX: dict[str, Any] = {
    **_DECODER,
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "hidden_act": "gelu",
    "intermediate_size": 512,
    "layer_norm_eps": 1e-5,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "use_parallel_residual": True,
    "attention_bias": True,
}
_QWEN2: dict[str, Any] = {
    **_DECODER,
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
    "sliding_window": 32,
    "max_window_layers": 2,
}
_QWEN3: dict[str, Any] = {
    **_DECODER,
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "num_key_value_heads": 2,
    "head_dim": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "attention_bias": False,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 2,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "llama-gqa": {**_LLAMA, "num_key_value_heads": 2},
    "llama-tied": {**_LLAMA, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "llama-bias": {**_LLAMA, "attention_bias": True, "mlp_bias": True},
    "llama3": _LLAMA3,
    # The newer spelling of the same configuration, which transformers 5 writes.
    "llama3-rope-parameters": {
        **{key: value for key, value in _LLAMA3.items() if key not in ("rope_theta", "rope_scaling")},
        "rope_parameters": {**_LLAMA3_SCALING, "rope_theta": 500000.0},
    },
    "llama-linear-rope": {**_LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}},
    "mistral": {
        **_DECODER,
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "sliding_window": 32,
    },
    "gpt_neox": _NEOX,
    "gpt_neox-sequential": {**_NEOX, "use_parallel_residual": False, "rotary_pct": 1.0},
    "qwen2": _QWEN2,
    "qwen2-tied": {**_QWEN2, "tie_word_embeddings": True},
    "qwen3": _QWEN3,
    "qwen3-tied": {**_QWEN3, "tie_word_embeddings": True},
}
VARIANTS: tuple[str, ...] = tuple(CONFIGS)

_SENTENCEPIECE = ("llama", "llama-gqa", "llama-tied", "llama-bias", "llama-linear-rope", "mistral")

CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make_checkpoint(
    directory: Path,
    variant: str,
    *,
    dtype: str = "float32",
    shards: int = 1,
    format: str = "safetensors",
    seed: int = 0,
    config: dict[str, Any] | None = None,
    tokenizer: bool = True,
) -> Path:
    """Write a checkpoint of `variant` into `directory` (made if missing) and return the directory.

    `dtype` is float32, float16 or bfloat16; `format` is safetensors or bin (a torch zip pickle); `config` overrides
    keys of the variant's config.json (a None value is written as null); `seed` changes the weights.
    """
    settings = copy.deepcopy({**CONFIGS[variant], **(config or {})})
    weights = _weights(settings, f"{variant}/{seed}")
    directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / "config.json", {**settings, "torch_dtype": dtype, "transformers_version": "4.51.0"})
    _write_json(
        directory / "generation_config.json",
        {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "temperature": 0.7, "top_p": 0.9, "do_sample": True},
    )
    if tokenizer:
        write_tokenizer(directory, "sentencepiece" if variant in _SENTENCEPIECE else "byte-level")
    _write_weights(directory, weights, dtype, shards, format)
    return directory


def cached_checkpoint(variant: str, **arguments: Any) -> Path:
    """`make_checkpoint` into a directory shared by all tests and workers: read only, copy it to change it."""
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    key = hashlib.sha256(json.dumps([code, variant, arguments], sort_keys=True).encode()).hexdigest()[:16]
    final = cache_root() / "checkpoints" / f"{variant}-{key}"
    if not final.is_dir():
        final.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{variant}-"))
        make_checkpoint(scratch, variant, **arguments)
        try:
            scratch.rename(final)
        except OSError:  # Another worker was faster; its bytes are the same.
            shutil.rmtree(scratch)
    return final


def renamed_copy(source: Path, directory: Path, old: str, new: str) -> Path:
    """A copy of a checkpoint where the first `old` in the name of each tensor is `new`."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, directory)
    tensors = load_file(source / "model.safetensors")
    save_file({name.replace(old, new, 1): value for name, value in tensors.items()}, directory / "model.safetensors")
    return directory


def cache_root() -> Path:
    """Where tests keep what is slow to make: LLMBUILD_TEST_CACHE, or a directory of this user under the temporary one."""
    chosen = os.environ.get("LLMBUILD_TEST_CACHE")
    return Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"llmbuild-test-cache-{os.getuid()}"


def reference_model(directory: Path) -> Any:
    """The checkpoint as a float32 transformers model in evaluation mode, with eager attention."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def write_tokenizer(directory: Path, kind: str) -> None:
    """Write tokenizer.json and tokenizer_config.json; `kind` is byte-level (GPT-2 like) or sentencepiece (Llama 2 like)."""
    special = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    _write_json(directory / "tokenizer.json", tokenizer_of(special, kind))
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "clean_up_tokenization_spaces": False,
            "chat_template": CHATML_TEMPLATE,
        },
    )


def tokenizer_of(special: list[str], kind: str) -> dict[str, Any]:
    """The content of a tokenizer.json with these special tokens; `kind` as for `write_tokenizer`."""
    return _byte_level(special) if kind == "byte-level" else _sentencepiece(special)


def _byte_level(special: list[str]) -> dict[str, Any]:
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = [*special, *sorted(ByteLevel.alphabet())]
    merges = [("Ġ", "t"), ("h", "e"), ("i", "n"), ("Ġ", "a"), ("o", "n"), ("e", "r"), ("Ġt", "he"), ("Ġ", "c")]
    tokens += [left + right for left, right in merges]
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return _tokenizer(special, tokens, merges, None, step, step, byte_fallback=False)


def _sentencepiece(special: list[str]) -> dict[str, Any]:
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"theaino"]
    merges = [("▁", "t"), ("h", "e"), ("▁", "a"), ("i", "n"), ("o", "n"), ("▁t", "he")]
    tokens += [left + right for left, right in merges]
    normalizer = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    decoder = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    return _tokenizer(special, tokens, merges, normalizer, None, decoder, byte_fallback=True)


def _tokenizer(
    special: list[str],
    tokens: list[str],
    merges: list[tuple[str, str]],
    normalizer: dict[str, Any] | None,
    pre_tokenizer: dict[str, Any] | None,
    decoder: dict[str, Any],
    *,
    byte_fallback: bool,
) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": token, **flags} for index, token in enumerate(special)],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": byte_fallback,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [list(pair) for pair in merges],
        },
    }


def _weights(settings: dict[str, Any], seed: str) -> dict[str, Any]:
    """The state dict as float32 torch tensors, in the module's order, tied heads left out as published files do."""
    import numpy as np
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    # transformers writes into the dictionaries that it is given.
    config = AutoConfig.for_model(**copy.deepcopy(settings))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    random = np.random.default_rng(zlib.crc32(seed.encode()))
    weights: dict[str, Any] = {}
    for name, parameter in model.state_dict().items():
        if settings["tie_word_embeddings"] and name == "lm_head.weight":
            continue
        shape = tuple(parameter.shape)
        # Norms stay near one, and matrices keep activations near unit size, so that logits differ clearly.
        if len(shape) == 1:
            centre = 1.0 if name.endswith("weight") else 0.0
            value = centre + 0.1 * random.standard_normal(shape)
        else:
            value = random.standard_normal(shape) * (0.5 if "embed_in" in name or "embed_tokens" in name else 0.11)
        weights[name] = torch.from_numpy(value.astype(np.float32))
    if settings["model_type"] == "gpt_neox":
        # transformers 5 calls the head lm_head in memory; files hold it as embed_out, in its place at the end.
        if "lm_head.weight" in weights:
            weights["embed_out.weight"] = weights.pop("lm_head.weight")
        # Published GPT-NeoX files hold buffers that no model needs; every reader must step over them.
        rotary = int(HIDDEN // settings["num_attention_heads"] * settings["rotary_pct"])
        for layer in range(settings["num_hidden_layers"]):
            at = f"gpt_neox.layers.{layer}.attention"
            weights[f"{at}.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool).tril()
            weights[f"{at}.masked_bias"] = torch.tensor(-1e9)
            weights[f"{at}.rotary_emb.inv_freq"] = 1.0 / 10000 ** (torch.arange(0, rotary, 2) / rotary)
    return weights


def _write_weights(directory: Path, weights: dict[str, Any], dtype: str, shards: int, format: str) -> None:
    import torch
    from safetensors.torch import save_file

    target = getattr(torch, dtype)
    weights = {
        name: (tensor.to(target) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in weights.items()
    }
    stem, suffix = {"safetensors": ("model", "safetensors"), "bin": ("pytorch_model", "bin")}[format]
    names = list(weights)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        part = names[len(names) * shard // shards : len(names) * (shard + 1) // shards]
        file = f"{stem}.{suffix}" if shards == 1 else f"{stem}-{shard + 1:05d}-of-{shards:05d}.{suffix}"
        tensors = {name: weights[name] for name in part}
        if format == "safetensors":
            save_file(tensors, directory / file, metadata={"format": "pt"})
        else:
            torch.save(tensors, directory / file)
        weight_map.update(dict.fromkeys(part, file))
    if shards > 1:
        total = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
        _write_json(
            directory / f"{stem}.{suffix}.index.json",
            {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
        )


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
