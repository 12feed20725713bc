"""What ends an answer: the checkpoint's end tokens, and the template's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmbuild.conversation.stops import tokenizer_end, with_stops
from llmbuild.conversation.templates import fill_template, resolve_template
from llmbuild.conversation.vocabulary import AddedToken, Vocabulary

WORDS = Vocabulary(
    {"!": 0, '"': 1, "#": 2, "word": 3, "###": 8},
    {
        "<|im_end|>": AddedToken(4, 4, True),
        "<|endoftext|>": AddedToken(5, 5, True),
        "<plain>": AddedToken(6, 6, False),
        "<|eot_id|>": AddedToken(7, 7, True),
    },
)
ROLES = {"user": "U", "assistant": "A"}


def stops(template: Any, ends: Any, vocabulary: Vocabulary = WORDS) -> tuple[Any, list[str]]:
    notes: list[str] = []
    if isinstance(template, str):
        template = resolve_template(template, Path())
    else:
        template = fill_template({"roles": ROLES, "seps": [""], **template}, name="own", file="own")
    result = with_stops(template, ends, vocabulary, notes.append)
    assert {**result, "stop_token_ids": None} == {**template, "stop_token_ids": None}
    return result["stop_token_ids"], notes


def test_a_stop_string_that_is_a_special_token_is_a_stop_token() -> None:
    # The fixed 2 is an end token of this checkpoint, so it stays.
    assert stops("chatml", 2) == ([2, 4], [])


def test_a_fixed_number_of_another_vocabulary_gives_way() -> None:
    found, (note,) = stops("chatml", [5, 4])
    assert found == [4, 5]
    assert "'chatml' stops at 2 (\"#\"), no end token of this checkpoint" in note
    assert 'ends at 4 ("<|im_end|>") and 5 ("<|endoftext|>")' in note


def test_what_fits_stays_as_it_is() -> None:
    assert stops({"stop_token_ids": [5, 4], "stop_str": ["<|endoftext|>", "<|im_end|>"]}, 4) == ([5, 4], [])
    # What the template writes after an answer ends it.
    assert stops({"stop_token_ids": [7], "seps": ["<|eot_id|>"]}, 5) == ([7, 5], [])


def test_a_stop_string_of_ordinary_text_is_no_token() -> None:
    assert stops({"stop_str": ["###", "<plain>", "nowhere"]}, 5) == ([5], [])


def test_without_any_end_nothing_is_invented() -> None:
    found, (gone, none) = stops("LM", None)
    assert found == []
    assert "'LM' stops at 2" in gone
    assert "no token ends an answer" in gone
    assert "no file of the checkpoint names an end token" in none
    assert stops("chatml", None)[0] == [4]


def test_a_number_beyond_every_token_gives_way() -> None:
    found, (note,) = stops("qwen2", [5])
    assert found == [5, 4]
    assert "151643 and 151645" in note


@pytest.mark.parametrize(
    ("config", "older", "found"),
    [
        ({"eos_token": "<|im_end|>"}, {}, 4),
        ({"eos_token": {"content": "<|endoftext|>"}}, {}, 5),
        ({"eos_token": "word"}, {}, 3),
        ({"eos_token": None}, {"eos_token": "<|im_end|>"}, 4),
        ({"eos_token": "word"}, {"eos_token": "<|im_end|>"}, 4),
        ({"eos_token": "word"}, {"eos_token": None}, None),
        ({"eos_token": "word", "added_tokens_decoder": {}}, {"eos_token": "<|im_end|>"}, 3),
        ({"tokenizer_class": "GPT2Tokenizer"}, {}, None),
        ({}, {}, None),
        # The next number after 5 pieces and 4 added tokens, whatever is written.
        ({"eos_token": "<new>", "added_tokens_decoder": {"9": {"content": "<new>"}}}, {}, 9),
        ({"eos_token": "<new>", "added_tokens_decoder": {"70": {"content": "<new>"}, "8": {"content": "<b>"}}}, {}, 10),
        ({"eos_token": "<new>", "added_tokens_decoder": {"3": {"content": "<new>"}, "4": {"content": "word"}}}, {}, 9),
        ({"eos_token": "<none>", "added_tokens_decoder": {"x": {"content": "<none>"}, "9": "<none>"}}, {}, None),
        ({"eos_token": 7, "added_tokens_decoder": 7}, {}, None),
    ],
)
def test_the_tokenizers_own_end(config: Any, older: Any, found: int | None) -> None:
    assert tokenizer_end(config, older, WORDS) == found
