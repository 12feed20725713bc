"""From a checkpoint's chat template to MLC's fields.

The chat template is rendered on conversations whose texts are marks.  What stands between the marks is cut into the fields:

    prefix ids + system_template(system) + for every message role + role_content_sep + text + separator, and the header of the
    answer is role + role_empty_sep

There is often more than one way to cut, so that several templates are proposed, the most natural first; `probes` decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from llmbuild.conversation.jinja import Chat, Rendered
from llmbuild.conversation.templates import PLACEHOLDERS, fill_template

_SYSTEM, _ASKED, _ANSWERED = "Qsystem0Q", ("Quser1Q", "Quser2Q", "Quser3Q"), ("Qanswer1Q", "Qanswer2Q")

_QUESTION = (("user", _ASKED[0]),)
_TALK = (
    *_QUESTION,
    ("assistant", _ANSWERED[0]),
    ("user", _ASKED[1]),
    ("assistant", _ANSWERED[1]),
    ("user", _ASKED[2]),
)
DERIVING_CHATS = (
    Chat(_TALK),
    Chat((("system", _SYSTEM), *_QUESTION)),
    Chat(_QUESTION, prompt=False),
    Chat(_TALK[:2], prompt=False),
)
"""What `derive` has rendered: a talk, a system message, and a question and an answer that nothing follows."""

_NICE = re.compile(r"[\s:]+\Z")
_MOST_WAYS = 6


@dataclass(frozen=True, slots=True)
class _Pieces:
    """What the chat template writes around the texts of a talk."""

    before: str
    after_question: str
    after_answer: str
    header: str
    closed_question: str | None
    closed_answer: str | None
    system: tuple[str, str] | None
    """Around a system message: what precedes it, and what stands between it and the first question; None where it is refused."""
    system_is_lost: bool


def derive(rendered: Sequence[Rendered], added: Mapping[str, int], begin: str | None) -> Iterator[Mapping[str, Any]]:
    """Proposals for a template, from `DERIVING_CHATS` as the chat template renders them.

    `added` are the tokenizer's added tokens, `begin` its bos_token.  There are no proposals where the texts do not come once
    and in their order.
    """
    pieces = _pieces(rendered)
    if pieces is None:
        return
    special = _Special(added)
    for after_user in _first(_separators(pieces.after_question, pieces.header, pieces.closed_question, special)):
        for after_assistant in _first(_separators(pieces.after_answer, None, pieces.closed_answer, special)):
            user = pieces.after_answer[len(after_assistant) :]
            roles = _roles(user, pieces.after_question[len(after_user) :], pieces.header[len(after_user) :], special)
            stops = _stops(after_assistant, user, special)
            for system in _systems(pieces, user, special, begin):
                for strip in (False, True):
                    fields = {
                        **system,
                        **roles,
                        **stops,
                        "seps": [after_user] if after_user == after_assistant else [after_user, after_assistant],
                        "strip_reasoning_in_history": strip,
                    }
                    yield fill_template(fields, name="checkpoint", file="the checkpoint's chat template")


class _Special:
    """The added tokens of a tokenizer in texts."""

    def __init__(self, added: Mapping[str, int]) -> None:
        self._added = added
        longest = sorted((token for token in added if token.strip()), key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, longest)) or r"(?!)")

    def starts(self, text: str) -> list[int]:
        return [found.start() for found in self._any.finditer(text)]

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [found.span() for found in self._any.finditer(text)]

    def first(self, text: str) -> tuple[str, int] | None:
        """The first added token in a text, with its id."""
        found = self._any.search(text)
        return None if found is None else (found.group(), self._added[found.group()])

    def run(self, text: str) -> list[str]:
        """The added tokens at the beginning of a text, without anything between them."""
        tokens, at = [], 0
        while found := self._any.match(text, at):
            tokens.append(found.group())
            at = found.end()
        return tokens

    def ids(self, tokens: Sequence[str]) -> list[int]:
        return [self._added[token] for token in tokens]


def _cut(text: str | None, marks: Sequence[str]) -> list[str] | None:
    """What stands before, between and after the marks, each of which must be there once, in this order."""
    if text is None or any(text.count(mark) != 1 for mark in marks):
        return None
    pieces = []
    for mark in marks:
        piece, found, text = text.partition(mark)
        if not found:
            return None
        pieces.append(piece)
    return [*pieces, text]


def _pieces(rendered: Sequence[Rendered]) -> _Pieces | None:
    talk, system, question, answer = (one.text for one in rendered)
    cut = _cut(talk, (_ASKED[0], _ANSWERED[0], _ASKED[1], _ANSWERED[1], _ASKED[2]))
    if cut is None:
        return None
    closed_question, closed_answer = _cut(question, _ASKED[:1]), _cut(answer, (_ASKED[0], _ANSWERED[0]))
    with_system = _cut(system, (_SYSTEM, _ASKED[0]))
    return _Pieces(
        before=cut[0],
        after_question=cut[3],
        after_answer=cut[4],
        header=cut[5],
        closed_question=None if closed_question is None else closed_question[-1],
        closed_answer=None if closed_answer is None else closed_answer[-1],
        system=None if with_system is None else (with_system[0], with_system[1]),
        system_is_lost=system is not None and _SYSTEM not in system,
    )


def _first(ways: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(ways))[:_MOST_WAYS]


def _separators(after: str, header: str | None, closed: str | None, special: _Special) -> Iterator[str]:
    """Where the text after a message may be cut into its separator and the next message's role, the best first."""
    common = after if header is None else _common_start(after, header)
    if closed is not None and common.startswith(closed):
        yield closed
    for start in sorted(special.starts(common), reverse=True):
        if start:
            yield common[:start]
    # Without tokens of its own a convention ends messages with line breaks.
    yield common[: len(common) - len(common.lstrip())]
    yield common
    yield ""


def _roles(user: str, assistant: str, header: str, special: _Special) -> dict[str, Any]:
    """The roles with what separates them from their texts, from what precedes a question, an answer and an answer to come."""
    name = _common_start(assistant, header)
    rest = assistant[len(name) :]
    templates = {}
    if rest and user.endswith(rest):
        content_sep = rest
    elif rest:
        content_sep = ""
        templates["assistant"] = rest + PLACEHOLDERS["assistant"]
    else:
        content_sep = _nice_end(user, assistant, special)
        name = assistant[: len(assistant) - len(content_sep)]
    return {
        "roles": {"user": user[: len(user) - len(content_sep)], "assistant": name},
        "role_content_sep": content_sep,
        "role_empty_sep": header[len(name) :],
        "role_templates": templates,
    }


def _nice_end(one: str, other: str, special: _Special) -> str:
    """The end that two roles have in common and that is no part of a name: blanks and colons, and added tokens before them."""
    common = one[len(one) - len(_common_start(one[::-1], other[::-1])) :]
    found = _NICE.search(common)
    start = len(common) if found is None else found.start()
    for begin, end in reversed(special.spans(common)):
        if end == start and one != common:
            start = begin
    return common[start:]


def _stops(after_assistant: str, user: str, special: _Special) -> dict[str, Any]:
    """What ends an answer: the added token that follows it, else the text that does."""
    token = special.first(after_assistant)
    if token is not None:
        return {"stop_str": [token[0]], "stop_token_ids": [token[1]]}
    text = after_assistant.strip() or user.strip()
    return {"stop_str": [text] if text else [], "stop_token_ids": []}


def _systems(pieces: _Pieces, user: str, special: _Special, begin: str | None) -> Iterator[dict[str, Any]]:
    """The fields of the system message.  `user` is what precedes a question in the middle of a talk."""
    with_role = pieces.before.endswith(user)
    head = pieces.before[: len(pieces.before) - len(user)] if with_role else pieces.before
    if pieces.system is None:
        for prefix in _prefixes(head, head, pieces, special, begin):
            rest = head[len("".join(prefix)) :]
            fields = _of_prefix(prefix, special)
            # A chat template that drops system messages is followed; before one that refuses them they stand as they are.
            template = rest if rest or pieces.system_is_lost else PLACEHOLDERS["system"]
            yield {**fields, "system_template": template, "add_role_after_system_message": with_role}
        return
    start, end = pieces.system
    for prefix, adds_role in product(_prefixes(head, start, pieces, special, begin), (True, False)):
        if adds_role and not end.endswith(user):
            continue
        close = end[: len(end) - len(user)] if adds_role else end
        length = len("".join(prefix))
        opening, rest = start[length:], (head if adds_role else pieces.before)[length:]
        fields = {
            **_of_prefix(prefix, special),
            "system_template": opening + PLACEHOLDERS["system"] + close,
            "add_role_after_system_message": adds_role,
        }
        if rest.startswith(opening) and rest.endswith(close) and len(rest) >= len(opening) + len(close):
            yield {**fields, "system_message": rest[len(opening) : len(rest) - len(close)]}
        yield {**fields, "render_empty_system_message": False}
        if rest:
            # What stands there without a system message has another form than what stands around one.
            yield {**fields, "system_template": PLACEHOLDERS["system"], "system_message": rest}


def _prefixes(head: str, start: str, pieces: _Pieces, special: _Special, begin: str | None) -> Iterator[Sequence[str]]:
    """The tokens that begin every conversation and come nowhere else in it, then all that precede a first question: the one that
    ends answers may begin conversations too."""
    common = special.run(_common_start(head, start))
    rest = pieces.after_question + pieces.after_answer + pieces.header
    alone = []
    for token in common:
        if token in rest or (token != begin and "".join(common) != head):
            break
        alone.append(token)
    yield alone
    if alone != common and "".join(common) == head:
        yield common


def _of_prefix(prefix: Sequence[str], special: _Special) -> dict[str, Any]:
    return {"system_prefix_token_ids": special.ids(prefix)} if prefix else {}


def _common_start(one: str, other: str) -> str:
    at = 0
    while at < min(len(one), len(other)) and one[at] == other[at]:
        at += 1
    return one[:at]
