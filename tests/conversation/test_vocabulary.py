"""The numbers of tokens, against the tokenizers library."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from llmbuild.conversation.vocabulary import Vocabulary, read_vocabulary

FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def tokenizer(vocabulary: dict[str, int], added: list[tuple[str, int, bool]]) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": text, "special": special, **FLAGS} for text, number, special in added
        ],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"},
    }


@pytest.mark.parametrize("seed", range(20))
def test_added_tokens_have_the_numbers_that_the_library_gives_them(seed: int) -> None:
    from tokenizers import Tokenizer

    draw = random.Random(seed)
    pieces = {letter: 2 * at if draw.random() < 0.2 else at for at, letter in enumerate("abcdefgh")}
    pieces = {letter: number for number, letter in {number: letter for letter, number in pieces.items()}.items()}
    names = draw.sample([*pieces, "<x>", "<y>", "<z>"], 5)
    added = [(name, pieces.get(name, draw.randrange(40)), draw.random() < 0.5) for name in names]
    content = tokenizer(pieces, added)
    found, library = read_vocabulary(content), Tokenizer.from_str(json.dumps(content))
    for text in [*pieces, *names]:
        assert found.number(text) == library.token_to_id(text), text
    assert found.end == max(library.get_vocab().values()) + 1
    assert {found.special(name) is not None for name, _, special in added if special} <= {True}
    for name, written, special in added:
        assert found.added[name].written == written
        assert (found.special(name) is not None) == special


def test_unigram_pieces_are_numbered_by_their_place() -> None:
    found = read_vocabulary({"model": {"vocab": [["a", 0.0], ["b", -1.0]]}, "added_tokens": None})
    assert (found.number("b"), found.text(0), found.text(5), found.number("c")) == (1, "a", None, None)


@pytest.mark.parametrize("content", [None, {}, {"model": 3}, {"model": {"vocab": {"a": "x"}}, "added_tokens": [1, {}]}])
def test_what_is_no_token_is_left_out(content: Any) -> None:
    assert read_vocabulary(content) == Vocabulary({}, {})
    assert read_vocabulary(content).end == 0
