"""tokenizer.json and tokenizer_config.json as GGUF metadata implies them, for the `tokenizers` library and MLC's runtimes.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, tokenizer.ggml.*.  The regular expressions are those that
the models' own tokenizer.json files have; GGUF names them by `tokenizer.ggml.pre`.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbuild.checkpoints.bpe_merges import merges_of_scores
from llmbuild.checkpoints.piece_types import PieceType
from llmbuild.errors import InputError, Where, did_you_mean

Piece = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """How a byte-level tokenizer cuts text before merging.

    `splits` are regular expressions, one after another, or none for GPT-2's, which is built in; `digits` cuts numbers into digits
    first;
    `ignore_merges` takes a whole word that is a token without merging; `add_bos` is the default of add_bos_token.
    """

    splits: tuple[str, ...] = ()
    digits: bool = False
    ignore_merges: bool = False
    add_bos: bool = False
    normal_form: bool = False


_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"


def _gpt4_like(numbers: str, signs: str = r"[^\s\p{L}\p{N}]+[\r\n]*") -> tuple[str]:
    return (rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?{signs}|\s*[\r\n]+|\s+(?!\S)|\s+",)


def _by_case(numbers: str, endings: str = "") -> tuple[str]:
    """Words end where capitals follow small letters."""
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    words = "|".join(rf"[^\r\n\p{{L}}\p{{N}}]?{word}{endings}" for word in (f"{upper}*{lower}+", f"{upper}+{lower}*"))
    return (rf"{words}|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",)


_DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
)

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    **dict.fromkeys(("gpt-2", "phi-2", "roberta-bpe", "gigachat", "mpt", "exaone4"), PreTokenizer()),
    "olmo": PreTokenizer(normal_form=True),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "exaone"), PreTokenizer(digits=True)),
    **dict.fromkeys(
        ("llama3", "llama-v3", "llama-bpe", "smaug-bpe"),
        PreTokenizer(_gpt4_like(r"\p{N}{1,3}"), ignore_merges=True, add_bos=True),
    ),
    **dict.fromkeys(("dbrx", "glm4", "chatglm-bpe"), PreTokenizer(_gpt4_like(r"\p{N}{1,3}"))),
    "qwen2": PreTokenizer(_gpt4_like(r"\p{N}"), normal_form=True),
    "deepseek-r1-qwen": PreTokenizer(_gpt4_like(r"\p{N}"), normal_form=True, add_bos=True),
    "stablelm2": PreTokenizer(_gpt4_like(r"\p{N}"), normal_form=True),
    "tekken": PreTokenizer(_by_case(r"\p{N}"), ignore_merges=True, add_bos=True),
    "gpt-4o": PreTokenizer(_by_case(r"\p{N}{1,3}", f"{_ENDINGS}?")),
    "seed-coder": PreTokenizer(_gpt4_like(r"\p{N}", r"[^\s\p{L}\p{N}\r\n]+")),
    "hunyuan-dense": PreTokenizer(_DEEPSEEK),
}
"""By tokenizer.ggml.pre."""

Note = Callable[[str], None]


def make_tokenizer_files(
    metadata: Mapping[str, Any], path: Path, note: Note | None = None, pre: str = "gpt-2"
) -> dict[str, bytes]:
    """The two files' bytes.  `note` takes a sentence about what the file does not say.  `pre` is what tokenizer.ggml.pre would
    be where it is absent, for converters before spring 2024 did not write it.

    Raises InputError for a tokenizer of an unknown kind, or an inconsistent one.
    """
    vocabulary = _Vocabulary(metadata, path)
    match vocabulary.model:
        case "gpt2":
            tokenizer, add_bos = _byte_level(vocabulary, _pre_tokenizer(vocabulary, note, pre))
        case "llama":
            tokenizer, add_bos = _sentencepiece(vocabulary)
        case other:
            raise vocabulary.wrong(
                "model", f"tokenizers of kind {reprlib.repr(other)} are not supported; gpt2 and llama are"
            )
    add_bos = vocabulary.flag("add_bos_token", add_bos)
    add_eos = vocabulary.flag("add_eos_token", False)
    tokenizer["post_processor"] = _template(vocabulary, add_bos, add_eos)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": add_bos,
        "add_eos_token": add_eos,
        "clean_up_tokenization_spaces": False,
    }
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    for name, key in names.items():
        token = vocabulary.token_of(key)
        if token is not None:
            config[name] = token
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        config["chat_template"] = template
    return {"tokenizer.json": _dump(tokenizer), "tokenizer_config.json": _dump(config)}


class _Vocabulary:
    """The tokens with their types, checked."""

    def __init__(self, metadata: Mapping[str, Any], path: Path) -> None:
        self._metadata = metadata
        self._path = path
        self.architecture = str(metadata.get("general.architecture"))
        self.model = metadata.get("tokenizer.ggml.model")
        if self.model is None:
            raise self.wrong("model", "the file has no tokenizer")
        self.tokens: list[str] = self.strings("tokens")
        types = metadata.get("tokenizer.ggml.token_type", [PieceType.NORMAL] * len(self.tokens))
        if not isinstance(types, list | array) or len(types) != len(self.tokens):
            raise self.wrong("token_type", f"there is not one for each of the {len(self.tokens)} tokens")
        self.types: Sequence[int] = types
        # Converters fill the vocabulary up to the embedding's rows with tokens that no text can give.
        self.kept = [
            index
            for index, (token, kind) in enumerate(zip(self.tokens, types, strict=True))
            if not (kind == PieceType.UNUSED and re.fullmatch(r"\[PAD\d+\]", token))
        ]
        self.vocab = {self.tokens[index]: index for index in self.kept}
        if len(self.vocab) != len(self.kept):
            raise self.wrong("tokens", "two tokens are the same")

    def get(self, key: str) -> Any:
        return self._metadata.get(f"tokenizer.ggml.{key}")

    def strings(self, key: str) -> list[str]:
        value = self.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "it is missing or not a list of texts")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        return value if isinstance(value, bool) else default

    def token_of(self, key: str) -> str | None:
        """The token of `<key>_token_id`, or None where the file names none."""
        index = self.get(f"{key}_token_id")
        if index is None:
            return None
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(self.tokens):
            raise self.wrong(
                f"{key}_token_id", f"{reprlib.repr(index)} is not a token's number; there are {len(self.tokens)} tokens"
            )
        return self.tokens[index]

    def added_tokens(self) -> list[Piece]:
        """The tokens that are found in text before anything else: control tokens and the user's own."""
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        special = (PieceType.CONTROL, PieceType.UNKNOWN)
        return [
            {"id": index, "content": self.tokens[index], **flags, "special": self.types[index] in special}
            for index in self.kept
            if self.types[index] in (*special, PieceType.USER_DEFINED) and self.tokens[index]
        ]

    def wrong(self, key: str, why: str) -> InputError:
        return InputError(
            "the GGUF file's tokenizer cannot be used",
            where=Where(str(self._path), key=f"tokenizer.ggml.{key}"),
            why=why,
            fix="use another GGUF file or the original checkpoint of the model",
        )


def _pre_tokenizer(vocabulary: _Vocabulary, note: Note | None, usual: str) -> PreTokenizer:
    name = vocabulary.get("pre")
    if name is None or name == "":
        name = usual
        if note is not None:
            note(
                "the GGUF file does not say how its tokenizer cuts text (tokenizer.ggml.pre); "
                f"it is cut as models of architecture {vocabulary.architecture} do it ({name!r})"
            )
    pre = PRE_TOKENIZERS.get(name) if isinstance(name, str) else None
    if pre is None:
        near = did_you_mean(name, PRE_TOKENIZERS) if isinstance(name, str) else None
        raise vocabulary.wrong(
            "pre", f"{reprlib.repr(name)} is not known{'; ' + near if near else ''}; known: {', '.join(PRE_TOKENIZERS)}"
        )
    return pre


def _byte_level(vocabulary: _Vocabulary, pre: PreTokenizer) -> tuple[Piece, bool]:
    merges = [merge.split(" ") for merge in vocabulary.strings("merges")]
    for pair in merges:
        if len(pair) != 2 or any(part not in vocabulary.vocab for part in (*pair, "".join(pair))):
            raise vocabulary.wrong("merges", f"{reprlib.repr(' '.join(pair))} does not join two tokens to a third")
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": not pre.splits}
    steps: list[Piece] = []
    if pre.digits:
        steps.append({"type": "Digits", "individual_digits": True})
    for split in pre.splits:
        steps.append({"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False})
    steps.append(level)
    tokenizer = _tokenizer(vocabulary, merges, ignore_merges=pre.ignore_merges, byte_fallback=False)
    tokenizer["normalizer"] = {"type": "NFC"} if pre.normal_form else None
    tokenizer["pre_tokenizer"] = steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}
    tokenizer["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return tokenizer, pre.add_bos


def _sentencepiece(vocabulary: _Vocabulary) -> tuple[Piece, bool]:
    """A SentencePiece BPE model as the BPE with byte fallback that Llama 2's own tokenizer.json has."""
    prefix = vocabulary.flag("add_space_prefix", True)
    tokenizer = _tokenizer(vocabulary, _merges_of_scores(vocabulary), ignore_merges=False, byte_fallback=True)
    unknown = vocabulary.token_of("unknown")
    if unknown is None and PieceType.UNKNOWN in vocabulary.types:
        unknown = vocabulary.tokens[vocabulary.types.index(PieceType.UNKNOWN)]
    tokenizer["model"].update(unk_token=unknown, fuse_unk=True)
    spaces: Piece = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepend: Piece = {"type": "Prepend", "prepend": "▁"}
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [prepend, spaces]} if prefix else spaces
    decoders: list[Piece] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    tokenizer["decoder"] = {"type": "Sequence", "decoders": decoders}
    return tokenizer, True


def _merges_of_scores(vocabulary: _Vocabulary) -> list[list[str]]:
    """SentencePiece joins the pair whose result has the best score; so every way to make a token is a merge of that rank."""
    scores = vocabulary.get("scores")
    if not isinstance(scores, list | array) or len(scores) != len(vocabulary.tokens):
        raise vocabulary.wrong("scores", "there is not one for each token")
    if not all(isinstance(score, float) and not math.isnan(score) for score in scores):
        raise vocabulary.wrong("scores", "they are not all numbers")
    kinds = (PieceType.NORMAL, PieceType.USER_DEFINED, PieceType.UNUSED)
    pieces = {vocabulary.tokens[index]: index for index in vocabulary.kept if vocabulary.types[index] in kinds}
    try:
        return merges_of_scores({token: (scores[index], index) for token, index in pieces.items()})
    except ValueError as error:
        raise vocabulary.wrong("tokens", str(error)) from error


def _tokenizer(vocabulary: _Vocabulary, merges: list[list[str]], *, ignore_merges: bool, byte_fallback: bool) -> Piece:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": vocabulary.added_tokens(),
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": byte_fallback,
            "ignore_merges": ignore_merges,
            "vocab": vocabulary.vocab,
            "merges": merges,
        },
    }


def _template(vocabulary: _Vocabulary, add_bos: bool, add_eos: bool) -> Piece | None:
    """The post-processor that adds the begin and end tokens to a text, or None where neither is added."""
    ends = (vocabulary.token_of("bos") if add_bos else None, vocabulary.token_of("eos") if add_eos else None)
    if ends == (None, None):
        return None

    def around(text: str, number: int) -> list[Piece]:
        inner: Piece = {"Sequence": {"id": text, "type_id": number}}
        begin, end = (
            {"SpecialToken": {"id": token, "type_id": number}} if token is not None else None for token in ends
        )
        return [piece for piece in (begin, inner, end) if piece is not None]

    used = {token: vocabulary.vocab[token] for token in ends if token is not None}
    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": [*around("A", 0), *around("B", 1)],
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]} for token, index in used.items()},
    }


def _dump(value: Piece) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "surrogatepass")
