"""Whether every token that can be sent to a model has a row in its embedding.

A kernel that is given a number beyond the rows reads another row, or memory that is none of the embedding's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from llmbuild.conversation.templates import CHECKPOINT
from llmbuild.conversation.vocabulary import Vocabulary
from llmbuild.errors import InputError, Where

_OTHER_TOKENIZER = "use the tokenizer that belongs to these weights"

TOKEN_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


def check_numbers(
    rows: int,
    vocabulary: Vocabulary,
    conversation: Mapping[str, Any],
    files: Iterable[tuple[str, Mapping[str, Any]]],
    note: Callable[[str], None],
) -> None:
    """Raise InputError for a token beyond the embedding's rows that a text, the template or a configuration gives.

    `files` are the configurations that name tokens by number, each with its file's name.  An added token that the template
    does not send is a note: only a user who writes it out would send it.
    """
    check_named(rows, conversation, files)
    check_pieces(rows, vocabulary)
    have = f"the embedding has {rows} rows"
    added = {
        text: max(token.number, token.written)
        for text, token in vocabulary.added.items()
        if max(token.number, token.written) >= rows
    }
    sent = list(_texts(conversation))
    for text, number in added.items():
        if any(text in part for part in sent):
            raise InputError(
                f"the conversation template '{conversation['name']}' sends the token {_spoken(text)}, number {number}",
                why=have,
                fix=_OTHER_TOKENIZER,
            )
    if added:
        text, number = min(added.items(), key=lambda item: item[1])
        more = f" and {len(added) - 1} more are" if len(added) > 1 else " is"
        note(
            f"the added token {_spoken(text)} (number {number}){more} beyond the embedding's {rows} rows; nothing sends "
            f"such a token but a user who writes it out, and then {_fate(vocabulary.added[text].number, number, rows)}"
        )


def check_pieces(rows: int, vocabulary: Vocabulary) -> None:
    """The part of `check_numbers` that needs the tokenizer alone: what text is cut into."""
    beyond = {text: number for text, number in vocabulary.pieces.items() if number >= rows}
    if beyond:
        text, number = min(beyond.items(), key=lambda item: item[1])
        many = f", and {len(beyond)} tokens have numbers from there on" if len(beyond) > 1 else ""
        raise InputError(
            f"the token {_spoken(text)} has the number {number}",
            where="tokenizer.json",
            why=f"the embedding has {rows} rows{many}",
            fix=_OTHER_TOKENIZER,
        )


def _fate(sent: int, written: int, rows: int) -> str:
    """What becomes of an added token: its number is not the one of the file where that leaves a gap before it."""
    return (
        "it is refused"
        if sent >= rows
        else f"it is sent as {sent}, since tokenizers does not keep the gap before {written}"
    )


def check_named(
    rows: int, conversation: Mapping[str, Any] | None, files: Iterable[tuple[str, Mapping[str, Any]]]
) -> None:
    """The part of `check_numbers` that needs no tokenizer: what configurations, and a template that is known, name by number."""
    have = f"the embedding has {rows} rows"
    for file, values in files:
        for key in TOKEN_KEYS:
            given = values.get(key)
            for number in given if isinstance(given, list) else [given]:
                if type(number) is int and number >= rows:
                    raise InputError(
                        f"there is no token {number}",
                        where=Where(file, key=key),
                        why=have,
                        fix=f'correct it, or set ignore-keys = ["{key}"] in the model\'s table'
                        if file == "config.json"
                        else "give the number of a token of this model, or null",
                    )
    if conversation is None:
        return
    for number in conversation["system_prefix_token_ids"] or ():
        if number >= rows:
            raise InputError(
                f"the conversation template '{conversation['name']}' begins with the token {number}",
                why=have,
                fix=f'set conv-template = "{CHECKPOINT}", or name the template that the checkpoint was tuned with',
            )


def _texts(conversation: Mapping[str, Any]) -> Iterator[str]:
    """Every text that a template puts into a prompt."""
    for name in ("system_template", "system_message", "role_content_sep", "role_empty_sep"):
        yield conversation[name]
    yield from conversation["roles"].values()
    yield from conversation["role_templates"].values()
    yield from conversation["seps"]
    yield from (text for _, text in conversation["messages"] if text is not None)


def _spoken(text: str) -> str:
    return f"{json.dumps(text, ensure_ascii=False):.80}"
