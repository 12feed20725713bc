"""The config task: mlc-chat-config.json and the tokenizer's files.

Depends on the small files of a checkpoint (or on a preset), the metadata, the sampling values and the conversation
template; never on weights or on a platform.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from llmbuild.canonical import Json
from llmbuild.checkpoints.names import CHAT_CONFIG, SPECIAL_TOKENS_FILE, TOKENIZER_FILES
from llmbuild.engine.kind import Job, TaskKind
from llmbuild.errors import InputError, Where
from llmbuild.tasks.architectures import ARCHITECTURES

VERSION = "0.1.0"

GENERATION_DEFAULTS: Mapping[str, Json] = {
    "temperature": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "top_p": 1.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""Sampling values and token ids where neither the manifest nor the checkpoint sets them."""

CHECKPOINT_PATTERNS = (
    "config.json",
    "generation_config.json",
    *TOKENIZER_FILES,
    SPECIAL_TOKENS_FILE,
    "*.gguf",
)
"""The files of a checkpoint that this task reads (a GGUF file contains all of it itself)."""


def run(job: Job) -> None:
    """Write mlc-chat-config.json and copy the tokenizer's files beside it."""
    from llmbuild.checkpoints.files import is_file, parse_json, read_bounded
    from llmbuild.conversation.tokenizer_info import (
        active_vocab_size,
        detect_tokenizer_info,
    )
    from llmbuild.models.registry import family, infer_model_type

    params: Mapping[str, Any] = job.params
    files: dict[str, bytes] = {}
    special: dict[str, bytes] = {}
    if params["preset"] is not None:
        source: Mapping[str, Any] = params["preset"]
        generation_config: Mapping[str, Any] | None = None
    else:
        from llmbuild.checkpoints.open import read_metadata

        metadata = read_metadata(job.inputs["checkpoint"], checks=job.checks, note=job.note)
        source, generation_config = metadata.config, metadata.generation_config
        files = {name: content for name in TOKENIZER_FILES if (content := metadata.tokenizer_file(name)) is not None}
        special_tokens = job.inputs["checkpoint"] / SPECIAL_TOKENS_FILE
        if is_file(special_tokens):
            special[SPECIAL_TOKENS_FILE] = read_bounded(special_tokens, SPECIAL_TOKENS_FILE)
    model_type = params["model-type"] or infer_model_type(dict(source))
    config = family(model_type).configure(source, overrides(params["metadata"]))
    model_config = config.to_json()
    tokenizer = parse_json(files["tokenizer.json"], "tokenizer.json") if "tokenizer.json" in files else None
    generation = _generation(
        (params["generation"], "manifest", _snake),
        (generation_config or {}, "generation_config.json", None),
        (source, "config.json", None),
    )
    chat_config: dict[str, Any] = {
        "version": VERSION,
        "model_type": model_type,
        "quantization": params["quantization"],
        "model_config": model_config,
        "vocab_size": config.vocab_size,
        "context_window_size": config.context_window_size,
        "sliding_window_size": config.sliding_window_size,
        "prefill_chunk_size": config.prefill_chunk_size,
        "attention_sink_size": config.attention_sink_size,
        "tensor_parallel_shards": config.tensor_parallel_shards,
        "pipeline_parallel_stages": model_config.get("pipeline_parallel_stages", 1),
        "active_vocab_size": config.vocab_size if params["preset"] is not None else active_vocab_size(files | special),
        **{name: generation[name] for name in GENERATION_DEFAULTS if not name.endswith("_id")},
        "tokenizer_files": list(files),
        "tokenizer_info": detect_tokenizer_info(tokenizer),
        "conv_template": params["conversation"],
        **{name: generation[name] for name in GENERATION_DEFAULTS if name.endswith("_id")},
        "model_task": "chat",
        "embedding_metadata": None,
    }
    for name, content in files.items():
        (job.out / name).write_bytes(content)
    (job.out / CHAT_CONFIG).write_text(json.dumps(chat_config, indent=2, allow_nan=False), encoding="utf-8")
    job.progress(len(files) + 1, len(files) + 1, "files")


def _snake(name: str) -> str:
    return name.replace("-", "_")


def overrides(metadata: Mapping[str, Any]) -> Any:
    """The manifest's metadata (kebab-case keys, only what is set) as a family's overrides."""
    from llmbuild.models.configuration import DEFAULT_BATCH
    from llmbuild.models.family import Overrides

    values = {_snake(name): value for name, value in metadata.items()}
    return Overrides(**{"max_batch_size": DEFAULT_BATCH, **values})


def _generation(*places: tuple[Mapping[str, Any], str, Callable[[str], str] | None]) -> Mapping[str, Json]:
    """Each sampling value and token id from the first place that has it, else its default.

    A place is (values, file for messages, spelling of its keys or None).  A null counts as absent.  Raises InputError
    for a value of the wrong type.
    """
    chosen: dict[str, Json] = dict(GENERATION_DEFAULTS)
    for values, file, spelling in reversed(places):
        for key, value in values.items():
            name = spelling(key) if spelling else key
            if name not in GENERATION_DEFAULTS or value is None:
                continue
            if not _valid(name, value):
                raise InputError(
                    f"must be {_expected(name)}, not {json.dumps(value, default=str):.80}", where=Where(file, key=key)
                )
            chosen[name] = value
    return chosen


def _valid(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if not name.endswith("_id"):
        return isinstance(value, int | float) and math.isfinite(value)
    if isinstance(value, list) and name == "eos_token_id":
        return bool(value) and all(map(_is_id, value))
    return _is_id(value)


def _is_id(value: Any) -> bool:
    """A token's number as runtimes store it; some files have -1 for none."""
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 31) <= value < 1 << 31


def _expected(name: str) -> str:
    if not name.endswith("_id"):
        return "a number"
    return "a token id or a list of token ids" if name == "eos_token_id" else "a token id"


_CHECKPOINTS = (
    "files",
    "gguf",
    "gguf_checkpoint",
    "gguf_config",
    "gguf_names",
    "gguf_tokenizer",
    "huggingface",
    "names",
    "open",
    "pieces",
    "safetensors",
    "tensor",
    "torch_machine",
    "torch_pickle",
)
"""All but the adapters."""

KIND = TaskKind(
    name="config",
    version=1,
    params=("quantization", "model-type", "conversation", "metadata", "generation", "preset"),
    sources=(
        "llmbuild.tasks.config",
        "llmbuild.tasks.architectures",
        "llmbuild.engine.kind",
        "llmbuild.conversation.tokenizer_info",
        *ARCHITECTURES,
        *(f"llmbuild.checkpoints.{module}" for module in _CHECKPOINTS),
        "llmbuild.canonical",
        "llmbuild.errors",
        "llmbuild.printable",
        "llmbuild.jsontext",
    ),
    tools=("numpy", "ml_dtypes", "gguf"),
    run=run,
    in_place=True,
)
