"""Names of the files of a model."""

TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
)
"""The tokenizer files that a runtime may read, in the order in which `CHAT_CONFIG` lists them."""

SPECIAL_TOKENS_FILE = "special_tokens_map.json"
"""Read to count tokens, but no runtime requires it beside the weights."""

CHAT_CONFIG = "mlc-chat-config.json"
"""MLC's configuration of a model, which compilers and runtimes read."""

QUANTIZATION_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
"""What GPTQ's, AWQ's and NVIDIA's packers write beside config.json; it counts where config.json names no method."""

SAMPLING_UNSET = "sampling_unset"
"""The key there that says that its temperature and top_p are nobody's word, but MLC's defaults; absent elsewhere."""
