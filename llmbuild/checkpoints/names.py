"""Names of the files of a model."""

from __future__ import annotations

from collections.abc import Mapping

TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
)
"""The tokenizer files that a runtime may read, in the order in which `CHAT_CONFIG` lists them."""

TOKENIZER_JSON = "tokenizer.json"
"""The one of them that all runtimes read; the others are what it is made of where it is missing."""

TOKENIZER_CONFIG = "tokenizer_config.json"
"""The one of them that names the tokenizer's class."""

GENERATION_CONFIG = "generation_config.json"
"""Sampling values and tokens that end an answer; its values come before those of config.json."""

SPECIAL_TOKENS_FILE = "special_tokens_map.json"
"""Read to count tokens, but no runtime requires it beside the weights."""

CHAT_TEMPLATE_FILE = "chat_template.jinja"
"""The chat template as a file of its own; it comes before the one in tokenizer_config.json."""

CHAT_TEMPLATE_JSON = "chat_template.json"
"""The same in repositories of processors."""

CHAT_CONFIG = "mlc-chat-config.json"
"""MLC's configuration of a model, which compilers and runtimes read."""

SAMPLING_UNSET = "sampling_unset"
"""The key there that says that its temperature and top_p are nobody's word, but MLC's defaults; absent elsewhere."""

QUANTIZATION_FILES: Mapping[str, str] = {
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
    "hf_quant_config.json": "modelopt",
}
"""What packers of weights write beside config.json, with the method whose packer it is; it counts where config.json is silent."""
