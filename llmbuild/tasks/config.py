"""The config task: mlc-chat-config.json and the tokenizer's files.

Depends on the small files of a checkpoint and what inspect found of its tensors (or on a preset), the metadata, the
sampling values and the conversation template; never on weights or on a platform.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmbuild.canonical import Json
from llmbuild.checkpoints.names import (
    CHAT_CONFIG,
    CHAT_TEMPLATE_FILE,
    CHAT_TEMPLATE_JSON,
    SAMPLING_UNSET,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_CONFIG,
    TOKENIZER_FILES,
)
from llmbuild.engine.kind import Job, TaskKind
from llmbuild.tasks import generation
from llmbuild.tasks.facts import known_type, with_facts
from llmbuild.tasks.own import known_architecture, own_architecture

if TYPE_CHECKING:
    from llmbuild.models.family import ModelConfig

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


@dataclass(frozen=True, slots=True)
class _Given:
    """What the configuration is made from.

    `files` are the tokenizer's, by name, `tokenizer` is the content of tokenizer.json, and `special` is the older file of
    special tokens, which is not copied.  `info` is that of a tokenizer.json that was made from other files.
    """

    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    conversation: Mapping[str, Json]
    files: Mapping[str, bytes] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] | None = None
    special: Mapping[str, bytes] = field(default_factory=dict)
    info: Mapping[str, Json] | None = None


def run(job: Job) -> None:
    """Write mlc-chat-config.json and copy the tokenizer's files beside it."""
    from llmbuild.models.registry import family, infer_model_type

    params: Mapping[str, Any] = job.params
    given = _of_checkpoint(job) if params["preset"] is None else _of_preset(params)
    # What inspect has found needs no look at the other families.
    found = known_type(job) if params["preset"] is None else params["model-type"]
    model_type = found or infer_model_type(dict(given.config))
    own = own_architecture(job)
    config = (own or family(model_type)).configure(
        given.config, overrides(params["metadata"]), ignore=params["ignore-keys"], note=job.note
    )
    heard = {key: value for key, value in given.config.items() if key not in params["ignore-keys"]}
    configurations = (("generation_config.json", given.generation_config), ("config.json", heard))
    chosen = generation.choose(
        (params["generation"], "manifest", _snake), *((values, file, None) for file, values in configurations)
    )
    unset = params["preset"] is None and not chosen.keys() & {"temperature", "top_p"}
    conversation, active = given.conversation, config.vocab_size
    if params["preset"] is None:
        conversation, active = _settle_tokens(chosen, given, config.vocab_size, configurations, job.note)
    chat_config = {
        "version": VERSION,
        "model_type": model_type,
        "quantization": params["quantization"],
        **_of_model(config),
        "active_vocab_size": active,
        **_of_conversation({**generation.DEFAULTS, **chosen}, given, conversation),
        "model_task": "chat",
        "embedding_metadata": None,
        **({SAMPLING_UNSET: True} if unset else {}),
    }
    for name, content in given.files.items():
        (job.out / name).write_bytes(content)
    (job.out / CHAT_CONFIG).write_text(json.dumps(chat_config, indent=2, allow_nan=False), encoding="utf-8")
    job.progress(len(given.files) + 1, len(given.files) + 1, "files")


def _of_preset(params: Mapping[str, Any]) -> _Given:
    from llmbuild.conversation.own_template import with_system_prompt

    return _Given(params["preset"], {}, with_system_prompt(params["conversation"], params["system-prompt"]))


def _of_checkpoint(job: Job) -> _Given:
    """The checkpoint's files, with a tokenizer.json made where it has another form, and its conversation template."""
    from llmbuild.checkpoints.files import is_file, parse_json, read_bounded
    from llmbuild.conversation.make_tokenizer import TOKENIZER, make_tokenizer
    from llmbuild.conversation.own_template import settle_template
    from llmbuild.models.open import read_metadata
    from llmbuild.models.wrappers import text_config

    params: Mapping[str, Any] = job.params
    directory = job.inputs["checkpoint"]
    metadata = read_metadata(directory, checks=job.checks, note=job.note, family=known_architecture(job))
    config = with_facts(job, text_config(metadata.config))
    files = {name: content for name in TOKENIZER_FILES if (content := metadata.tokenizer_file(name)) is not None}
    special = {}
    if is_file(directory / SPECIAL_TOKENS_FILE):
        special[SPECIAL_TOKENS_FILE] = read_bounded(directory / SPECIAL_TOKENS_FILE, SPECIAL_TOKENS_FILE)
    made = make_tokenizer(files | special, config, job.note)
    if made is not None:
        complete = files | {TOKENIZER: made.content}
        files = {name: complete[name] for name in TOKENIZER_FILES if name in complete}
    conversation = settle_template(
        params["conversation"], params["system-prompt"], directory, files | special, job.note
    )
    return _Given(
        config,
        metadata.generation_config or {},
        conversation,
        files,
        parse_json(files[TOKENIZER], TOKENIZER) if TOKENIZER in files else None,
        special,
        None if made is None else made.info,
    )


def _settle_tokens(
    chosen: dict[str, Json],
    given: _Given,
    rows: int,
    configurations: Sequence[tuple[str, Mapping[str, Any]]],
    note: Callable[[str], None],
) -> tuple[Mapping[str, Json], int]:
    """The template with every token that ends an answer, and the active vocabulary.

    `chosen` gets the tokenizer's own end token where it has none.  Raises InputError for a token that can be sent and has none of
    the embedding's `rows`.
    """
    from llmbuild.checkpoints.files import parse_json
    from llmbuild.conversation.numbers import check_numbers
    from llmbuild.conversation.stops import tokenizer_end, with_stops
    from llmbuild.conversation.tokenizer_info import active_vocab_size
    from llmbuild.conversation.vocabulary import read_vocabulary

    vocabulary = read_vocabulary(given.tokenizer)
    conversation, files = given.conversation, {**given.files, **given.special}
    if "eos_token_id" not in chosen:
        settings, older = (
            parse_json(files[name], name) if name in files else {} for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_FILE)
        )
        end = tokenizer_end(settings, older, vocabulary)
        chosen["eos_token_id"] = end if end is not None and end < rows else None
    if given.tokenizer is not None:
        conversation = with_stops(conversation, chosen["eos_token_id"], vocabulary, note)
    check_numbers(rows, vocabulary, conversation, configurations, note)
    return conversation, min(max(active_vocab_size(files), vocabulary.end), rows)


def _of_model(config: ModelConfig) -> Mapping[str, Json]:
    """The fields that the architecture and the manifest's metadata decide."""
    model_config = config.to_json()
    return {
        "model_config": model_config,
        "vocab_size": config.vocab_size,
        "context_window_size": config.context_window_size,
        "sliding_window_size": config.sliding_window_size,
        "prefill_chunk_size": config.prefill_chunk_size,
        "attention_sink_size": config.attention_sink_size,
        "tensor_parallel_shards": config.tensor_parallel_shards,
        "pipeline_parallel_stages": model_config.get("pipeline_parallel_stages", 1),
    }


def _of_conversation(values: Mapping[str, Json], given: _Given, conversation: Mapping[str, Json]) -> Mapping[str, Json]:
    """The sampling values, the tokenizer, the template and the numbers of tokens, in MLC's order."""
    from llmbuild.conversation.tokenizer_info import detect_tokenizer_info

    return {
        **{name: values[name] for name in generation.DEFAULTS if not name.endswith("_id")},
        "tokenizer_files": list(given.files),
        "tokenizer_info": detect_tokenizer_info(given.tokenizer) if given.info is None else given.info,
        "conv_template": conversation,
        **{name: values[name] for name in generation.DEFAULTS if name.endswith("_id")},
    }


def _snake(name: str) -> str:
    return name.replace("-", "_")


def overrides(metadata: Mapping[str, Any]) -> Any:
    """The manifest's metadata (kebab-case keys, only what is set) as a family's overrides."""
    from llmbuild.models.family import Overrides
    from llmbuild.models.rows import DEFAULT_BATCH

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
        "architecture",
    ),
    sources=("llmbuild.tasks.config",),
    tools=("numpy", "ml_dtypes", "gguf", "tokenizers", "jinja2", "llmbuild family"),
    run=run,
    in_place=True,
)
