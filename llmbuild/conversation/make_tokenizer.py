"""A tokenizer.json for a checkpoint that has none: from tokenizer.model, or from vocab.json with merges.txt.

The class that transformers takes for the checkpoint decides the rules; what is made is checked against the original.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from llmbuild.canonical import Json
from llmbuild.checkpoints.files import parse_json
from llmbuild.checkpoints.names import SPECIAL_TOKENS_FILE
from llmbuild.conversation.added_tokens import ADDED, CONFIG, AddedTokens, read_added_tokens
from llmbuild.conversation.byte_level import BYTE_LEVEL, MERGES, VOCAB, make_byte_level
from llmbuild.conversation.sentencepiece_model import FILE, read_sentencepiece
from llmbuild.conversation.sentencepiece_tokenizer import (
    SENTENCEPIECE,
    check_kind,
    default_roles,
    make_sentencepiece,
    piece_tokens,
)
from llmbuild.conversation.tokenizer_info import no_tokenizer
from llmbuild.errors import InputError, Where

TOKENIZER = "tokenizer.json"

_GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")
"""Classes that read a tokenizer.json as it is, and so say nothing about other files."""
_OF_MODEL_TYPE: Mapping[str, str] = {
    "gpt_neox": "GPTNeoXTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
}
"""The class of a model_type where the checkpoint names none."""


@dataclass(frozen=True, slots=True)
class MadeTokenizer:
    """The content of tokenizer.json, and `tokenizer_info` of it."""

    content: bytes
    info: Mapping[str, Json]


_Make = Callable[[Mapping[str, bytes], Mapping[str, Any], str | None], MadeTokenizer]


def make_tokenizer(
    files: Mapping[str, bytes], config: Mapping[str, Any], note: Callable[[str], None]
) -> MadeTokenizer | None:
    """The tokenizer.json of a checkpoint, or None where it has one, or has none of the files that one is made of.

    `files` are the tokenizer's files by name (special_tokens_map.json among them), `config` is config.json.  Raises InputError
    when the class is not known, a file is not valid, or what would be made differs from the original; ToolchainError when
    the sentencepiece library is needed and not installed.
    """
    if TOKENIZER in files or not _originals(files):
        return None
    settings = _json(files, CONFIG)
    make, name = _rules(files, settings, config)
    if make is _byte_level and name is None:
        note(
            "no file of the checkpoint names the class of its tokenizer; vocab.json and merges.txt are taken for GPT-2's kind "
            "(tokenizer_class of tokenizer_config.json would say another one)"
        )
    return make(files, settings, name)


def check_tokenizer(names: Collection[str], settings: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise InputError where the names of a checkpoint's files, the content of tokenizer_config.json and that of config.json show
    that it has no tokenizer, or one of a class that is not known."""
    if TOKENIZER in names:
        return
    if not _originals(names):
        error = no_tokenizer()
        error.where = TOKENIZER
        if (own := _own_code(settings, config)) is not None:
            error.why, error.fix = _of_own_code(own)
        raise error
    _rules(names, settings, config)


def _originals(names: Collection[str]) -> bool:
    """Whether files are there of which a tokenizer.json can be made."""
    return FILE in names or (VOCAB in names and MERGES in names)


def _rules(names: Collection[str], settings: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[_Make, str | None]:
    """What makes a tokenizer.json of the files with these names, and the class whose rules it follows.  Raises InputError."""
    model = FILE in names
    pairs = VOCAB in names and MERGES in names
    name, where = _class(settings, config)
    if name is not None and name in BYTE_LEVEL and pairs:
        return _byte_level, name
    if model and (name in SENTENCEPIECE if name is not None else config.get("model_type") in ("llama", "mistral")):
        return _sentencepiece, name
    if name is None and pairs:
        return _byte_level, None
    have = FILE if model else f"{VOCAB} and {MERGES}"
    known = sorted(name for name in (*BYTE_LEVEL, *SENTENCEPIECE) if name is not None)
    why = f"rules are known of {', '.join(known)}"
    fix = "save the tokenizer with transformers, which writes tokenizer.json, and put that file beside config.json"
    if name not in known and (own := _own_code(settings, config)) is not None:
        why, fix = _of_own_code(own)
    raise InputError(
        f"a tokenizer.json cannot be made of {have}: the rules of {name or 'a checkpoint without tokenizer_class'} are "
        + ("for other files" if name in known else "not known"),
        where=where,
        why=why,
        fix=fix,
    )


def _own_code(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """The class of a tokenizer whose code comes with the checkpoint, or None."""
    for values in (settings, config):
        classes = values.get("auto_map")
        own = classes.get("AutoTokenizer") if isinstance(classes, Mapping) else None
        names = own if isinstance(own, list | tuple) else [own]
        if found := next((name for name in names if isinstance(name, str)), None):
            return found
    return None


def _of_own_code(name: str) -> tuple[str, str]:
    """Why such a tokenizer is not read, and what helps."""
    return (
        f"the tokenizer is code that comes with the checkpoint ({name}), which is never run",
        "put a tokenizer.json of the same vocabulary beside config.json",
    )


def _class(settings: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str | None, Where]:
    """The class that transformers' AutoTokenizer takes, without "Fast", and where it is named."""
    model_type = config.get("model_type")
    model_type = model_type if isinstance(model_type, str) else ""
    named: str | None = None
    file = CONFIG
    for values, place in ((settings, CONFIG), (config, "config.json")):
        value = values.get("tokenizer_class")
        if value is None:
            continue
        if not isinstance(value, str):
            raise InputError("must be the name of a class", where=Where(place, key="tokenizer_class"))
        named, file = value.removesuffix("Fast"), place
        break
    where = Where(file, key="tokenizer_class")
    if named in _GENERIC:
        named = None
    # Transformers does not believe the checkpoint here: qwen2 has its own class, and LlamaTokenizer means none for mistral.
    if model_type == "qwen2":
        return _OF_MODEL_TYPE[model_type], where
    if model_type == "mistral" and named == "LlamaTokenizer":
        return None, where
    return named or _OF_MODEL_TYPE.get(model_type), where


def _byte_level(files: Mapping[str, bytes], settings: Mapping[str, Any], name: str | None) -> MadeTokenizer:
    rules = BYTE_LEVEL[name or "GPT2Tokenizer"]
    vocab = parse_json(files[VOCAB], VOCAB)
    defaults = rules.defaults
    if name is None:
        # The roles of a class that was only guessed add no token.
        defaults = {role: token for role, token in defaults.items() if token in vocab}
    added = _added(files, settings, defaults=defaults)
    text = make_byte_level(vocab, files[MERGES], added, settings, rules)
    return _made(text, "byte_level", prefix=False)


def _sentencepiece(files: Mapping[str, bytes], settings: Mapping[str, Any], name: str | None) -> MadeTokenizer:
    rules = SENTENCEPIECE[name]
    data = files[FILE]
    model = read_sentencepiece(data)
    check_kind(model, rules)
    added = _added(
        files,
        settings,
        defaults=default_roles(model, rules),
        extra=piece_tokens(model, rules),
        appended=rules.appended,
    )
    made = make_sentencepiece(data, model, added, settings, rules)
    return _made(made.text, "byte_fallback", prefix=made.prefix)


def _made(text: str, method: str, *, prefix: bool) -> MadeTokenizer:
    info: dict[str, Json] = {
        "token_postproc_method": method,
        "prepend_space_in_encode": prefix,
        "strip_space_in_decode": prefix,
    }
    return MadeTokenizer(text.encode(), info)


def _added(files: Mapping[str, bytes], settings: Mapping[str, Any], **of_class: Any) -> AddedTokens:
    return read_added_tokens(settings, _json(files, SPECIAL_TOKENS_FILE), _json(files, ADDED), **of_class)


def _json(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    return parse_json(files[name], name) if name in files else {}
