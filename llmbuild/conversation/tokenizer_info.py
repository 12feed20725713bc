"""The properties of a tokenizer that a runtime requires, read from its files without loading it.

`tokenizer_info` of mlc-chat-config.json defines how a token's text becomes bytes and where a space is added or removed.  The
active vocabulary is the tokenizer's length with its added tokens; a model's own vocabulary is often padded beyond it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llmbuild.canonical import Json
from llmbuild.checkpoints.files import parse_json
from llmbuild.errors import InputError, Where

_SPACE = "\u2581"  # The character that SentencePiece writes for a space.
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_SPECIAL_LISTS = ("additional_special_tokens", "extra_special_tokens")


def detect_tokenizer_info(tokenizer: Mapping[str, Any] | None) -> Mapping[str, Json]:
    """`tokenizer_info` from the content of tokenizer.json, or the defaults when there is none.

    A decoder ByteLevel or ByteFallback, alone or in a Sequence (where the last one counts), gives the method; a normalizer that
    prepends the space character sets that a space is added before encoding; a decoder that strips one leading space sets that
    for decoding.
    """
    info: dict[str, Json] = {
        "token_postproc_method": "byte_fallback",
        "prepend_space_in_encode": False,
        "strip_space_in_decode": False,
    }
    if tokenizer is None:
        return info
    for decoder in _steps(tokenizer.get("decoder"), "decoders"):
        kind = decoder.get("type")
        if kind == "ByteLevel":
            info["token_postproc_method"] = "byte_level"
        elif kind == "ByteFallback":
            info["token_postproc_method"] = "byte_fallback"
        elif kind == "Strip" and (decoder.get("content"), decoder.get("start"), decoder.get("stop")) == (" ", 1, 0):
            info["strip_space_in_decode"] = True
    for normalizer in _steps(tokenizer.get("normalizer"), "normalizers"):
        if normalizer.get("type") == "Prepend" and normalizer.get("prepend") == _SPACE:
            info["prepend_space_in_encode"] = True
    return info


def _steps(value: Any, members: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a component of tokenizer.json: the members of a Sequence, or the component itself."""
    if not isinstance(value, dict):
        return
    steps = value.get(members) if value.get("type") == "Sequence" else [value]
    yield from (step for step in (steps if isinstance(steps, list) else []) if isinstance(step, dict))


def active_vocab_size(files: Mapping[str, bytes]) -> int:
    """The number of distinct tokens of a tokenizer, as `len(AutoTokenizer.from_pretrained(...))` returns it.

    `files` are the tokenizer's files by name (special_tokens_map.json among them where there is one).  Raises InputError when
    there is no tokenizer.json, when a file is not valid, or when tokenizer.json lists an added token twice.
    """

    if "tokenizer.json" not in files:
        raise no_tokenizer()
    return len(_tokens_of_json(_content_of(files, "tokenizer.json")) | tokens_of_other_files(files))


def tokens_of_other_files(files: Mapping[str, bytes]) -> set[str]:
    """The tokens that the files beside tokenizer.json name: transformers adds those that it lacks.  Raises InputError."""
    config = _content_of(files, "tokenizer_config.json")
    tokens = _tokens_of_config(config)
    if "added_tokens_decoder" not in config:
        # The older files are read where tokenizer_config.json lacks the entry; where it has it, transformers ignores them.
        tokens |= _tokens_of_config(_content_of(files, "special_tokens_map.json"))
        tokens |= set(_content_of(files, "added_tokens.json"))
    return tokens


def _content_of(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    return parse_json(files[name], name) if name in files else {}


def no_tokenizer() -> InputError:
    """The error of a checkpoint without any of the files that a tokenizer is read from."""
    return InputError(
        "the checkpoint has no tokenizer",
        why="neither tokenizer.json nor tokenizer.model nor vocab.json with merges.txt is there",
        fix="put tokenizer.json beside config.json",
    )


def _tokens_of_json(tokenizer: Mapping[str, Any]) -> set[str]:
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        tokens = set(vocabulary)
    elif isinstance(vocabulary, list) and all(map(_is_piece, vocabulary)):
        tokens = {item[0] for item in vocabulary}  # Unigram: pairs of a piece and its score.
    else:
        raise InputError(
            "has no vocabulary", where="tokenizer.json", why="'model.vocab' is missing or not a vocabulary"
        )
    added = tokenizer.get("added_tokens")
    if not isinstance(added, list | None):
        raise InputError("must be a list of tokens", where=Where("tokenizer.json", key="added_tokens"))
    seen: set[str] = set()
    for entry in added or ():
        content = _content(entry)
        if content is None:
            raise InputError("an entry of 'added_tokens' has no content", where="tokenizer.json")
        if content in seen:
            raise InputError(
                f"the added token {json.dumps(content, ensure_ascii=False)} is listed twice",
                where="tokenizer.json",
                why="tokenizers then number the tokens after it wrongly",
                fix="remove one of the two entries of 'added_tokens'",
            )
        seen.add(content)
    return tokens | seen


def _is_piece(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and isinstance(item[0], str)


def _tokens_of_config(config: Mapping[str, Any]) -> set[str]:
    """Tokens named by tokenizer_config.json (or special_tokens_map.json): they are added where the vocabulary lacks them."""
    entries: list[Any] = [config.get(name) for name in _SPECIAL]
    for name in _SPECIAL_LISTS:
        listed = config.get(name)
        entries.extend(listed.values() if isinstance(listed, dict) else listed if isinstance(listed, list) else [])
    decoder = config.get("added_tokens_decoder")
    entries.extend(decoder.values() if isinstance(decoder, dict) else [])
    return {content for entry in entries if (content := _content(entry))}


def _content(entry: Any) -> str | None:
    """A token's text: it is written as a string or as an object with its properties."""
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else None
