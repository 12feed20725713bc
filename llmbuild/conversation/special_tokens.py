"""The special tokens of a tokenizer by their roles, as transformers takes them from its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The special tokens that have a role."""

_ENDOFTEXT = "<|endoftext|>"
CLASS_TOKENS: Mapping[str, Mapping[str, str]] = {
    "LlamaTokenizer": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    "CodeLlamaTokenizer": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    "Qwen2Tokenizer": {"unk_token": _ENDOFTEXT, "eos_token": _ENDOFTEXT, "pad_token": _ENDOFTEXT},
    "GPT2Tokenizer": {"unk_token": _ENDOFTEXT, "bos_token": _ENDOFTEXT, "eos_token": _ENDOFTEXT},
    "GPTNeoXTokenizer": {
        "unk_token": _ENDOFTEXT,
        "bos_token": _ENDOFTEXT,
        "eos_token": _ENDOFTEXT,
        "pad_token": "<|padding|>",
    },
}
"""What transformers' classes take where a tokenizer_config.json does not say; those of other classes have no defaults."""


def special_tokens(config: Mapping[str, Any], older: Mapping[str, Any]) -> dict[str, str]:
    """The text of each role that has one, by tokenizer_config.json, special_tokens_map.json and the class of the tokenizer."""
    name = str(_said(config, older).get("tokenizer_class") or "").removesuffix("Fast")
    named = named_tokens(config, older)
    return {key: text for key, text in {**CLASS_TOKENS.get(name, {}), **named}.items() if text is not None}


def named_tokens(config: Mapping[str, Any], older: Mapping[str, Any]) -> dict[str, str | None]:
    """The text of each role that one of the two files names, or None where the file says that there is none."""
    tokens: dict[str, str | None] = {}
    for key, value in _said(config, older).items():
        if key in SPECIAL_NAMES:
            content = value.get("content") if isinstance(value, dict) else value
            tokens[key] = content if isinstance(content, str) else None
    return tokens


def _said(config: Mapping[str, Any], older: Mapping[str, Any]) -> Mapping[str, Any]:
    """The older file is read only where tokenizer_config.json lacks `added_tokens_decoder`, and then it counts."""
    return config if "added_tokens_decoder" in config else {**config, **older}
