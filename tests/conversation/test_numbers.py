"""Tokens beyond the embedding's rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmbuild.conversation.numbers import check_numbers
from llmbuild.conversation.templates import fill_template, resolve_template
from llmbuild.conversation.vocabulary import AddedToken, Vocabulary
from llmbuild.errors import InputError

CHATML = resolve_template("chatml", Path())
FITS = Vocabulary({"a": 0, "b": 7}, {"<x>": AddedToken(7, 7, True)})


def check(vocabulary: Vocabulary = FITS, template: Any = CHATML, files: Any = (), rows: int = 8) -> list[str]:
    notes: list[str] = []
    check_numbers(rows, vocabulary, template, files, notes.append)
    return notes


def test_the_last_row_is_a_token() -> None:
    assert check(files=[("config.json", {"eos_token_id": [0, 7], "bos_token_id": 7, "pad_token_id": -1})]) == []


@pytest.mark.parametrize("key", ["bos_token_id", "eos_token_id", "pad_token_id"])
def test_a_configuration_names_a_token_that_is_none(key: str) -> None:
    value = [1, 8] if key == "eos_token_id" else 8
    with pytest.raises(InputError) as caught:
        check(files=[("generation_config.json", {}), ("config.json", {key: value})])
    assert str(caught.value.where) == f"config.json: {key}"
    assert caught.value.what == "there is no token 8"
    assert caught.value.why == "the embedding has 8 rows"


def test_a_piece_beyond_the_rows_is_refused_with_its_number() -> None:
    with pytest.raises(InputError) as caught:
        check(Vocabulary({"a": 0, "c": 9, "b": 8}, {}))
    assert caught.value.what == 'the token "b" has the number 8'
    assert caught.value.why == "the embedding has 8 rows, and 2 tokens have numbers from there on"


@pytest.mark.parametrize("token", [AddedToken(8, 8, True), AddedToken(7, 9, False), AddedToken(9, 3, True)])
def test_an_added_token_that_nothing_sends_is_a_note(token: AddedToken) -> None:
    (note,) = check(Vocabulary({"a": 0}, {"[PAD]": token}))
    assert '"[PAD]"' in note
    assert f"number {max(token.number, token.written)}" in note
    assert "8 rows" in note
    # The library gives a token the next number where the file leaves a gap.
    assert ("it is sent as 7" in note) == (token.number == 7) != note.endswith("it is refused")


def test_an_added_token_that_the_template_sends_is_refused() -> None:
    with pytest.raises(InputError, match="number 8") as caught:
        check(Vocabulary({"a": 0}, {"<|im_start|>": AddedToken(8, 8, True)}))
    assert "'chatml' sends" in caught.value.what


@pytest.mark.parametrize("name", ["llama-3", "phi-4"])
def test_a_template_begins_with_a_token_that_is_none(name: str) -> None:
    with pytest.raises(InputError, match="the embedding has 8 rows") as caught:
        check(template=resolve_template(name, Path()))
    assert f"'{name}' begins with the token" in caught.value.what


def test_any_text_of_a_template_counts() -> None:
    roles = {"user": "U", "assistant": "A"}
    for fields in (
        {"roles": {**roles, "user": "<n>"}},
        {"seps": ["x", "<n>"]},
        {"role_empty_sep": "<n>"},
        {"messages": [["user", "say <n>"]]},
        {"role_templates": {"user": "<n>{user_message}"}},
    ):
        template = fill_template({"roles": roles, "seps": [""], **fields}, name="own", file="own")
        with pytest.raises(InputError, match="'own' sends"):
            check(Vocabulary({}, {"<n>": AddedToken(8, 8, False)}), template)
