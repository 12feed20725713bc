"""A tokenizer.json from tokenizer.model: SentencePiece's BPE and Unigram as those with byte fallback that `tokenizers` has.

What is written is checked with the sentencepiece library, on hard texts and on the text of every piece.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmbuild.checkpoints.bpe_merges import merges_of_scores
from llmbuild.checkpoints.piece_types import PieceType
from llmbuild.conversation.added_tokens import AddedToken, AddedTokens
from llmbuild.conversation.hard_texts import HARD_TEXTS, around, compare, cut_at
from llmbuild.conversation.sentencepiece_model import FILE, ModelType, SentencePieceModel
from llmbuild.conversation.tokenizer_json import Part, bpe, load, unigram_model, write
from llmbuild.errors import InputError, ToolchainError

SPACE = "\u2581"
"""The character that SentencePiece writes for a space."""
BESIDE = "put the tokenizer.json of the same model beside it"
MOST_USER_DEFINED = 2_000
"""Pieces that are looked for in every text; published models have up to some hundreds."""
CHECKED_TOKENS = 256
"""Added tokens that are compared."""
CHECKED_PIECES = 100_000
"""Pieces whose own text is compared, fewer with many added tokens and user-defined pieces, which are looked for in each."""
CHECKED_LENGTH = 64
"""Characters of a piece whose own text is compared."""


@dataclass(frozen=True, slots=True)
class SentencePieceRules:
    """How a class of transformers uses a model.

    `own` says that the class decides about the space before a text (`add_prefix_space`), and normalizes nothing; otherwise
    the model decides.  `legacy` is the default of that key: with it a text after an added token gets that space too.
    `defaults` are the roles, None for those that the model itself names; `appended` are tokens that the class adds.
    """

    own: bool = False
    legacy: bool = True
    follows_legacy: bool = True
    defaults: Mapping[str, str | None] | None = None
    appended: tuple[str, ...] = ()
    add_bos: bool = False


_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_INFILLING = {
    "prefix_token": "\u2581<PRE>",
    "middle_token": "\u2581<MID>",
    "suffix_token": "\u2581<SUF>",
    "eot_token": "\u2581<EOT>",
}

SENTENCEPIECE: Mapping[str | None, SentencePieceRules] = {
    None: SentencePieceRules(),
    "LlamaTokenizer": SentencePieceRules(own=True, legacy=False, defaults=_LLAMA),
    "CodeLlamaTokenizer": SentencePieceRules(
        own=True,
        legacy=False,
        follows_legacy=False,
        add_bos=True,
        defaults=_LLAMA,
        appended=(*_INFILLING.values(), "<FILL_ME>"),
    ),
}
"""By the name of the class, without "Fast"; None is a checkpoint that names none, which follows its model."""


@dataclass(frozen=True, slots=True)
class _Prefix:
    """Where a space is put before a text: nowhere, before the first part of it alone, or also after added tokens; and whether
    a text that begins with one gets a second one.  In a `stripped` text spaces at the ends do not count."""

    any: bool
    everywhere: bool
    unless_there: bool
    stripped: bool

    @property
    def scheme(self) -> str:
        return "never" if not self.any else "always" if self.everywhere else "first"

    def before(self, part: str, *, first: bool) -> bool:
        """Whether one is put before this part of a text."""
        bare = part.lstrip(" ") if self.stripped else part
        there = bare.startswith((" ", SPACE))
        return self.any and (first or self.everywhere) and not (there and self.unless_there)


@dataclass(frozen=True, slots=True)
class MadeSentencePiece:
    """The text of tokenizer.json, and whether a space comes before a text."""

    text: str
    prefix: bool


def piece_tokens(model: SentencePieceModel, rules: SentencePieceRules) -> list[AddedToken]:
    """The pieces that are added tokens where no file of the checkpoint lists special ones."""
    kinds = (PieceType.CONTROL, PieceType.USER_DEFINED) if rules.own else (PieceType.CONTROL,)
    return [
        AddedToken(text, normalized=False, special=kind == PieceType.CONTROL)
        for text, kind in zip(model.texts, model.types, strict=True)
        if kind in kinds
    ]


def default_roles(model: SentencePieceModel, rules: SentencePieceRules) -> Mapping[str, str | None]:
    """The token of each role where tokenizer_config.json names none."""
    if rules.defaults is not None:
        return rules.defaults
    ids = {"bos_token": model.bos_id, "eos_token": model.eos_id}
    found: dict[str, str | None] = {
        name: model.texts[number] for name, number in ids.items() if 0 <= number < len(model.texts)
    }
    return {**found, "unk_token": _unknown(model)}


def make_sentencepiece(
    data: bytes,
    model: SentencePieceModel,
    added: AddedTokens,
    config: Mapping[str, Any],
    rules: SentencePieceRules,
) -> MadeSentencePiece:
    """The tokenizer.json of the model in `data`, whose kind is checked already.

    Raises InputError when what is made differs from it, ToolchainError when the sentencepiece library is not installed.
    """
    # transformers gives placeholders of Unigram no other names.
    texts = list(model.texts) if rules.own or model.model_type == ModelType.UNIGRAM else _named(model, added)
    prefix = config.get("add_prefix_space") in (None, True) if rules.own else model.dummy_prefix
    legacy = config.get("legacy", rules.legacy) is True if rules.follows_legacy else rules.legacy
    place = _Prefix(prefix, everywhere=legacy, unless_there=rules.own or not legacy, stripped=model.fewer_spaces)
    known = {token.content for token in added.tokens}
    user = [
        text
        for text, kind in zip(texts, model.types, strict=True)
        if kind == PieceType.USER_DEFINED and text not in known
    ]
    if len(user) > MOST_USER_DEFINED:
        raise InputError(f"has {len(user)} user-defined pieces, and {MOST_USER_DEFINED} are the most", where=FILE)
    if not rules.own:
        # An added token is found in the text as it is: what the model puts before a text must not hide it.
        added = AddedTokens([replace(token, normalized=False) for token in added.tokens], added.roles)
    text = write(
        _bpe(model, texts, user) if model.model_type == ModelType.BPE else _unigram(model, user),
        added,
        normalizer=None if rules.own else _normalizer(model, place),
        pre_tokenizer=_pre_tokenizer(place, user, own=rules.own),
        decoder=_decoder(prefix),
        config={"add_bos_token": rules.add_bos, **config},
        where=FILE,
    )
    _check(
        text,
        data,
        added,
        place,
        unigram=model.model_type == ModelType.UNIGRAM,
        looked_for=len(known) + len(user),
    )
    return MadeSentencePiece(text, prefix)


def _bpe(model: SentencePieceModel, texts: list[str], user: list[str]) -> Part:
    normal = {
        text: (model.scores[number], number)
        for number, text in enumerate(texts)
        if model.types[number] == PieceType.NORMAL
    }
    try:
        merges = merges_of_scores(normal)
    except ValueError as error:
        raise InputError("its pieces cannot be used", where=FILE, why=str(error)) from error
    return bpe(
        {text: number for number, text in enumerate(texts)},
        merges,
        unk_token=_unknown(model),
        fuse_unk=True,
        byte_fallback=_falls_back(model),
        ignore_merges=bool(user),
    )


def _unigram(model: SentencePieceModel, user: list[str]) -> Part:
    if user:
        raise InputError(
            "cannot be written as a tokenizer.json",
            where=FILE,
            why="Unigram's rule for user-defined pieces is the library's own, and the model has "
            f"{len(user)} that are no added tokens",
            fix=BESIDE,
        )
    normal = [at for at, kind in enumerate(model.types) if kind == PieceType.NORMAL]
    # The library finds every piece in a text, SentencePiece only the normal ones: the score of another, such as a byte's name
    # <0x41>, is below that of any way to cut its text.  A character without a piece costs more than the lowest score, which
    # plays no part where no longer piece has such a character.
    single = {text for at in normal if len(text := model.texts[at]) == 1}
    if any(not single.issuperset(model.texts[at]) for at in normal):
        raise InputError(
            "cannot be written as a tokenizer.json",
            where=FILE,
            why="it has pieces of characters that are no pieces by themselves",
            fix=BESIDE,
        )
    longest = max(len(text) for text in model.texts)
    low = longest * min((model.scores[at] for at in normal), default=0.0) - 1
    scores = [score if kind == PieceType.NORMAL else low for kind, score in zip(model.types, model.scores, strict=True)]
    pieces = list(zip(model.texts, scores, strict=True))
    return unigram_model(pieces, model.types.index(PieceType.UNKNOWN), byte_fallback=_falls_back(model))


def _falls_back(model: SentencePieceModel) -> bool:
    return model.byte_fallback or PieceType.BYTE in model.types


def _unknown(model: SentencePieceModel) -> str:
    return model.texts[model.types.index(PieceType.UNKNOWN)]


def check_kind(model: SentencePieceModel, rules: SentencePieceRules) -> None:
    """Raise InputError when a model is of a kind that cannot be written by the rules of the checkpoint's class."""
    if model.model_type == ModelType.UNIGRAM and rules.own:
        raise InputError(
            "is a SentencePiece model of kind unigram",
            where=FILE,
            why="the class that the checkpoint names takes the pieces for those of BPE, which are other tokens than the model's",
            fix=BESIDE,
        )
    if model.model_type not in (ModelType.BPE, ModelType.UNIGRAM):
        names = {kind.value: kind.name.lower() for kind in ModelType}
        name = names.get(model.model_type, str(model.model_type))
        raise InputError(
            f"is a SentencePiece model of kind {name}",
            where=FILE,
            why="a tokenizer.json is made of models of BPE and Unigram",
            fix=BESIDE,
        )
    if model.types.count(PieceType.UNKNOWN) != 1:
        raise InputError("not a SentencePiece model", where=FILE, why="it has not one unknown piece")
    if PieceType.UNUSED in model.types or model.suffix_spaces or not model.escapes_spaces:
        raise InputError(
            "cannot be written as a tokenizer.json",
            where=FILE,
            why="it has unused pieces, or treats spaces in an uncommon way",
            fix=BESIDE,
        )
    if len(set(model.texts)) != len(model.texts) or "" in model.texts:
        raise InputError("not a SentencePiece model", where=FILE, why="two pieces are the same, or one is empty")


def _named(model: SentencePieceModel, added: AddedTokens) -> list[str]:
    """The pieces' texts, where the checkpoint's files give placeholders the names that they have as tokens."""
    texts = list(model.texts)
    renamed = {token.id: token.content for token in added.tokens if token.id is not None and token.id < len(texts)}
    for number, content in renamed.items():
        if texts[number] != content and model.types[number] not in (PieceType.NORMAL, PieceType.BYTE):
            texts[number] = content
    if len(set(texts)) != len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise InputError(f"two pieces would be {twice[:60]!r}", where="tokenizer_config.json")
    return texts


def _normalizer(model: SentencePieceModel, prefix: _Prefix) -> Part:
    steps: list[Part] = []
    if model.charsmap:
        steps.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(model.charsmap).decode()})
    if model.fewer_spaces:
        for pattern, content in ((r"\A +| +\z", ""), (" {2,}", " ")):
            steps.append({"type": "Replace", "pattern": {"Regex": pattern}, "content": content})
    if prefix.any and not prefix.unless_there:
        steps.append({"type": "Prepend", "prepend": SPACE})
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    return {"type": "Sequence", "normalizers": steps}


def _pre_tokenizer(prefix: _Prefix, user: list[str], *, own: bool) -> Part | None:
    steps: list[Part] = []
    if own or (prefix.any and prefix.unless_there):
        steps.append({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": prefix.scheme, "split": False})
    if user:
        # Whole, and never part of a merge.
        pattern = "|".join(re.escape(text) for text in sorted(user, key=len, reverse=True))
        steps.append({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False})
    return {"type": "Sequence", "pretokenizers": steps} if steps else None


def _decoder(prefix: bool) -> Part:
    steps: list[Part] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _check(text: str, data: bytes, added: AddedTokens, prefix: _Prefix, *, unigram: bool, looked_for: int) -> None:
    """Compare what the library makes of a tokenizer.json with what sentencepiece makes of its model."""
    tokenizer = load(text, FILE)
    processors = {before: _processor(data, before) for before in (False, True)}
    first = processors[prefix.any]
    known = {token.content: tokenizer.token_to_id(token.content) for token in added.tokens}
    plain = {token.content for token in added.tokens if token.plain}

    def made(one: str) -> list[int]:
        ids: list[int] = tokenizer.encode(one, add_special_tokens=False).ids
        return ids

    def original(one: str) -> list[int]:
        ids: list[int] = []
        for place, part in enumerate(cut_at(one, known)):
            if place % 2:
                ids.append(known[part])
            else:
                ids += processors[prefix.before(part, first=place == 0)].encode(part)
        return ids

    pieces = (first.id_to_piece(number).replace(SPACE, " ") for number in range(first.get_piece_size()))
    own = [piece for piece in pieces if len(piece) <= CHECKED_LENGTH]
    own = own[:: 1 + len(own) * (1 + looked_for // 200) // CHECKED_PIECES]
    some = sorted(plain)[:: 1 + len(plain) // CHECKED_TOKENS]
    texts = [
        one for one in (*HARD_TEXTS, *around(some), *own) if plain.issuperset(token for token in known if token in one)
    ]

    def tied(ours: list[int], theirs: list[int]) -> bool:
        """Whether two ways to cut a text are the same but for the order of some pieces: both have the same score in Unigram, and
        the library and SentencePiece, which add up numbers of different precision, may take either."""
        if ours == theirs:
            return True
        spelled, wanted = ("".join(map(tokenizer.id_to_token, ids)) for ids in (ours, theirs))
        return unigram and sorted(ours) == sorted(theirs) and spelled == wanted

    compare(texts, made, original, FILE, "tokens", tied)
    unknown = first.unk_id()
    whole = [one for one in texts if not any(token in one for token in known) and unknown not in made(one)]

    def shown(text: str) -> str:
        # Where spaces at the ends do not count, sentencepiece takes all of them away.
        return text.lstrip(" ") if prefix.stripped else text

    compare(
        whole,
        lambda one: shown(tokenizer.decode(made(one))),
        lambda one: shown(first.decode(original(one))),
        FILE,
        "text",
    )


def _processor(data: bytes, prefix: bool) -> Any:
    """The library's own reader of the model, with or without a space before a text."""
    try:
        import sentencepiece
    except ImportError as error:
        raise ToolchainError(
            "the Python package sentencepiece is not installed",
            where=FILE,
            why="the checkpoint has no tokenizer.json; one is made of tokenizer.model, and compared with it",
            fix="install it, `pip install 'llmbuild[sentencepiece]'`, or put the model's tokenizer.json beside it",
        ) from error
    processor = sentencepiece.SentencePieceProcessor()
    # In protobuf a field that comes again counts: normalizer_spec.add_dummy_prefix.
    data += bytes([0x1A, 2, 0x18, prefix])
    try:
        processor.LoadFromSerializedProto(data)
    except Exception as error:  # The library raises RuntimeError and others for a damaged model.
        raise InputError("not a SentencePiece model", where=FILE, why=str(error)[:200]) from error
    return processor
