"""The config task: mlc-chat-config.json and the tokenizer's files.

Depends on the small files of a checkpoint and what inspect found of its tensors (or on a preset), the metadata, the
sampling values and the conversation template; never on weights or on a platform.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmbuild.canonical import Json
from llmbuild.checkpoints.names import (
    CHAT_CONFIG,
    CHAT_TEMPLATE_FILE,
    CHAT_TEMPLATE_JSON,
    SAMPLING_UNSET,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_FILES,
)
from llmbuild.engine.kind import Job, TaskKind
from llmbuild.tasks import generation
from llmbuild.tasks.facts import with_facts

VERSION = "0.1.0"

CHECKPOINT_PATTERNS = (
    "config.json",
    "generation_config.json",
    *TOKENIZER_FILES,
    SPECIAL_TOKENS_FILE,
    CHAT_TEMPLATE_FILE,
    CHAT_TEMPLATE_JSON,
    "*.gguf",
)
"""The files of a checkpoint that this task reads (a GGUF file contains all of it itself)."""


def run(job: Job) -> None:
    """Write mlc-chat-config.json and copy the tokenizer's files beside it."""
    from llmbuild.checkpoints.files import is_file, parse_json, read_bounded
    from llmbuild.conversation.make_tokenizer import TOKENIZER, make_tokenizer
    from llmbuild.conversation.own_template import settle_template, with_system_prompt
    from llmbuild.conversation.tokenizer_info import detect_tokenizer_info
    from llmbuild.models.registry import family, infer_model_type

    params: Mapping[str, Any] = job.params
    files: dict[str, bytes] = {}
    special: dict[str, bytes] = {}
    made = None
    if params["preset"] is not None:
        source: Mapping[str, Any] = params["preset"]
        generation_config: Mapping[str, Any] | None = None
        conversation = with_system_prompt(params["conversation"], params["system-prompt"])
    else:
        from llmbuild.checkpoints.open import read_metadata

        metadata = read_metadata(job.inputs["checkpoint"], checks=job.checks, note=job.note)
        source, generation_config = with_facts(job, metadata.config), metadata.generation_config
        files = {name: content for name in TOKENIZER_FILES if (content := metadata.tokenizer_file(name)) is not None}
        special_tokens = job.inputs["checkpoint"] / SPECIAL_TOKENS_FILE
        if is_file(special_tokens):
            special[SPECIAL_TOKENS_FILE] = read_bounded(special_tokens, SPECIAL_TOKENS_FILE)
        made = make_tokenizer(files | special, source, job.note)
        files = files if made is None else _in_order(files | {TOKENIZER: made.content})
        conversation = settle_template(
            params["conversation"], params["system-prompt"], job.inputs["checkpoint"], files, job.note
        )
    model_type = params["model-type"] or infer_model_type(dict(source))
    config = family(model_type).configure(
        source, overrides(params["metadata"]), ignore=params.get("ignore-keys", ()), note=job.note
    )
    model_config = config.to_json()
    tokenizer = parse_json(files[TOKENIZER], TOKENIZER) if TOKENIZER in files else None
    heard = {key: value for key, value in source.items() if key not in params.get("ignore-keys", ())}
    configurations = (("generation_config.json", generation_config or {}), ("config.json", heard))
    chosen = generation.choose(
        (params["generation"], "manifest", _snake), *((values, file, None) for file, values in configurations)
    )
    unset = not chosen.keys() & {"temperature", "top_p"}
    active = config.vocab_size
    if params["preset"] is None:
        conversation, active = _settle_tokens(
            chosen, conversation, config.vocab_size, files | special, tokenizer, configurations, job.note
        )
    values = {**generation.DEFAULTS, **chosen}
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
        "active_vocab_size": active,
        **{name: values[name] for name in generation.DEFAULTS if not name.endswith("_id")},
        "tokenizer_files": list(files),
        "tokenizer_info": detect_tokenizer_info(tokenizer) if made is None else made.info,
        "conv_template": conversation,
        **{name: values[name] for name in generation.DEFAULTS if name.endswith("_id")},
        "model_task": "chat",
        "embedding_metadata": None,
        **({SAMPLING_UNSET: True} if unset and params["preset"] is None else {}),
    }
    for name, content in files.items():
        (job.out / name).write_bytes(content)
    (job.out / CHAT_CONFIG).write_text(json.dumps(chat_config, indent=2, allow_nan=False), encoding="utf-8")
    job.progress(len(files) + 1, len(files) + 1, "files")


def _in_order(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: files[name] for name in TOKENIZER_FILES if name in files}


def _settle_tokens(
    chosen: dict[str, Json],
    conversation: Mapping[str, Json],
    rows: int,
    files: Mapping[str, bytes],
    tokenizer: Mapping[str, Any] | None,
    configurations: Sequence[tuple[str, Mapping[str, Any]]],
    note: Callable[[str], None],
) -> tuple[Mapping[str, Json], int]:
    """The template with every token that ends an answer, and the active vocabulary.

    `chosen` gets the tokenizer's own end token where it has none.  Raises InputError for a token that can be sent and has none of
    the embedding's `rows`.
    """
    from llmbuild.conversation.numbers import check_numbers
    from llmbuild.conversation.stops import tokenizer_end, with_stops
    from llmbuild.conversation.tokenizer_info import active_vocab_size
    from llmbuild.conversation.vocabulary import read_vocabulary

    vocabulary = read_vocabulary(tokenizer)
    if "eos_token_id" not in chosen:
        end = tokenizer_end(_naming(files), vocabulary)
        chosen["eos_token_id"] = end if end is not None and end < rows else None
    if tokenizer is not None:
        conversation = with_stops(conversation, chosen["eos_token_id"], vocabulary, note)
    check_numbers(rows, vocabulary, conversation, configurations, note)
    return conversation, min(max(active_vocab_size(files), vocabulary.end), rows)


def _naming(files: Mapping[str, bytes]) -> list[Mapping[str, Any]]:
    """The content of the files that may name the tokenizer's special tokens, in the order in which they count."""
    from llmbuild.checkpoints.files import parse_json

    return [parse_json(files[name], name) for name in ("tokenizer_config.json", SPECIAL_TOKENS_FILE) if name in files]


def _snake(name: str) -> str:
    return name.replace("-", "_")


def overrides(metadata: Mapping[str, Any]) -> Any:
    """The manifest's metadata (kebab-case keys, only what is set) as a family's overrides."""
    from llmbuild.models.configuration import DEFAULT_BATCH
    from llmbuild.models.family import Overrides

    values = {_snake(name): value for name, value in metadata.items()}
    return Overrides(**{"max_batch_size": DEFAULT_BATCH, **values})


KIND = TaskKind(
    name="config",
    version=1,
    params=(
        "quantization",
        "model-type",
        "ignore-keys",
        "conversation",
        "system-prompt",
        "metadata",
        "generation",
        "preset",
    ),
    sources=("llmbuild.tasks.config",),
    tools=("numpy", "ml_dtypes", "gguf", "tokenizers", "jinja2"),
    run=run,
    in_place=True,
)
