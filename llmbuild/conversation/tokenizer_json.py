"""Writing a tokenizer.json with the `tokenizers` library: what tokenizers of every kind have in common."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from llmbuild.conversation.added_tokens import ADDED, CONFIG, AddedTokens
from llmbuild.errors import InputError

Part = dict[str, Any]


def bpe(vocab: Mapping[str, int], merges: Sequence[Sequence[str]], **changes: Any) -> Part:
    """The model of a tokenizer.json."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **changes,
        "vocab": vocab,
        "merges": merges,
    }


def unigram_model(vocab: Sequence[tuple[str, float]], unknown: int, *, byte_fallback: bool) -> Part:
    """The model of a tokenizer.json, of pieces with their scores in the order of their numbers."""
    return {"type": "Unigram", "unk_id": unknown, "byte_fallback": byte_fallback, "vocab": vocab}


def write(
    model: Part,
    added: AddedTokens,
    *,
    normalizer: Part | None,
    pre_tokenizer: Part | None,
    decoder: Part,
    config: Mapping[str, Any],
    where: str,
) -> str:
    """The text of tokenizer.json.  `config` is tokenizer_config.json, `where` the file that has the vocabulary.

    Raises InputError when the library refuses the parts, or gives an added token another number than the files say.
    """
    tokenizer = load(
        json.dumps(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "added_tokens": [],
                "normalizer": normalizer,
                "pre_tokenizer": pre_tokenizer,
                "post_processor": None,
                "decoder": decoder,
                "model": model,
            },
            ensure_ascii=False,
        ),
        where,
    )
    vocab = model["vocab"]
    numbers = vocab if isinstance(vocab, Mapping) else {text: number for number, (text, _) in enumerate(vocab)}
    _add(tokenizer, numbers, added, CONFIG if "added_tokens_decoder" in config else ADDED)
    ends = {
        name: added.roles[f"{name}_token"]
        for name in ("bos", "eos")
        if config.get(f"add_{name}_token") is True and f"{name}_token" in added.roles
    }
    if ends:
        from tokenizers.processors import TemplateProcessing

        def around(text: str, number: int) -> list[str]:
            return [f"{part}:{number}" for part in (ends.get("bos"), text, ends.get("eos")) if part is not None]

        tokenizer.post_processor = TemplateProcessing(
            single=around("$A", 0),
            pair=[*around("$A", 0), *around("$B", 1)],
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(ends.values())],
        )
    text: str = tokenizer.to_str(pretty=True)
    return text + "\n"


def load(text: str, where: str) -> Any:
    """The library's tokenizer of a tokenizer.json; raises InputError when the library refuses it."""
    # The library's thread pool and TVM's would compete for the same cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # The library raises no narrower class.
        raise InputError(
            "cannot be written as a tokenizer.json",
            where=where,
            why=f"the tokenizers library refuses it: {str(error)[:200]}",
            fix="put the tokenizer.json of the same model beside it",
        ) from error


def _add(tokenizer: Any, vocab: Mapping[str, int], added: AddedTokens, numbers: str) -> None:
    """Add the tokens; `numbers` is the file that says which number each of them has."""
    from tokenizers import AddedToken

    tokenizer.add_tokens(
        [
            AddedToken(
                token.content,
                single_word=token.single_word,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                normalized=not token.special if token.normalized is None else token.normalized,
                special=token.special,
            )
            for token in added.tokens
        ]
    )
    taken = set(vocab.values())
    for token in added.tokens:
        number = tokenizer.token_to_id(token.content)
        if token.content not in vocab:
            if number in taken:
                raise InputError(
                    f"the token {token.content[:60]!r} cannot be added",
                    why=f"it would get number {number}, which another token has: the vocabulary has gaps",
                    fix="put the tokenizer.json of the same model beside it",
                )
            taken.add(number)
        if token.id is not None and token.id != number:
            raise InputError(
                f"the token {token.content[:60]!r} is said to be number {token.id}, and would be number {number}",
                where=numbers,
                why="tokenizers number tokens in the order in which they are added, after those of the vocabulary",
                fix="put the tokenizer.json of the same model beside it",
            )
