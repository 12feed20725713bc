"""The tokens that end an answer: those that the checkpoint names, and those of the conversation template.

Runtimes differ in what they read.  WebLLM stops at the template's `stop_token_ids` and at its stop strings only, and no runtime
shows a special token in the text where it looks for a stop string.  So every token that ends an answer is put into the
template's list.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmbuild.canonical import Json
from llmbuild.conversation.special_tokens import named_tokens
from llmbuild.conversation.vocabulary import Vocabulary


def tokenizer_end(config: Mapping[str, Any], older: Mapping[str, Any], vocabulary: Vocabulary) -> int | None:
    """The number of the tokenizer's own `eos_token`, by tokenizer_config.json and the older special_tokens_map.json.

    A class's own default does not count: transformers takes it only where the class fits tokenizer.json.  A token that
    tokenizer.json lacks has the number that it gets when those which tokenizer_config.json adds are added.
    """
    text = named_tokens(config, older).get("eos_token")
    if not text:
        return None
    number = vocabulary.number(text)
    return _added_by(config, text, vocabulary) if number is None else number


def _added_by(config: Mapping[str, Any], text: str, vocabulary: Vocabulary) -> int | None:
    """The number that transformers gives a token of `added_tokens_decoder` which tokenizer.json lacks.

    It adds all such tokens in the order of the numbers that are written there, and the library gives each the next one.
    """
    table = config.get("added_tokens_decoder")
    entries = table.items() if isinstance(table, dict) else ()
    written = {
        int(number): entry["content"]
        for number, entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("content"), str) and _is_number(number)
    }
    texts = [written[number] for number in sorted(written)]
    new = list(dict.fromkeys(each for each in texts if vocabulary.number(each) is None))
    return vocabulary.following + new.index(text) if text in new else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def with_stops(
    conversation: Mapping[str, Json], ends: Json, vocabulary: Vocabulary, note: Callable[[str], None]
) -> Mapping[str, Json]:
    """The template with every token that ends an answer in its `stop_token_ids`.

    `ends` are the checkpoint's end tokens.  A number that the template has fixed stays where that token is one of them, one of
    the template's stop strings, or what the template itself writes after an answer.  Elsewhere the number was meant for another
    vocabulary: it gives way to the checkpoint's own, with a note.
    """
    template: Mapping[str, Any] = conversation
    checkpoint = [number for number in (ends if isinstance(ends, list) else [ends]) if isinstance(number, int)]
    own = [number for stop in template["stop_str"] if (number := vocabulary.special(stop)) is not None]
    kept: list[int] = []
    gone: list[int] = []
    for number in template["stop_token_ids"]:
        text = vocabulary.text(number)
        said = text is not None and (text in template["stop_str"] or text in template["seps"][-1])
        (kept if said or number in checkpoint else gone).append(number)
    stops = list(dict.fromkeys([*kept, *own, *checkpoint]))
    if gone:
        instead = "an answer ends at " + _spoken(stops, vocabulary) if stops else "no token ends an answer"
        note(
            f"the conversation template '{template['name']}' stops at {_spoken(gone, vocabulary)}, no end token of this "
            f"checkpoint; {instead}"
        )
    if not stops and not template["stop_str"]:
        note(
            "no file of the checkpoint names an end token, and neither does the template: an answer ends at its length only"
        )
    return {**conversation, "stop_token_ids": stops}


def _spoken(numbers: Sequence[int], vocabulary: Vocabulary) -> str:
    """`2 ("#") and 5 ("</s>")`."""
    return " and ".join(
        str(number)
        if (text := vocabulary.text(number)) is None
        else f"{number} ({json.dumps(text, ensure_ascii=False)})"
        for number in numbers
    )
