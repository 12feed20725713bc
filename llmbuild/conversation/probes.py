"""Short conversations on which a conversation template is held against a checkpoint's chat template.

A probe is right when the token ids are equal to those of `apply_chat_template`, with the prompt encoded as a whole (as
llmbuild and MLC's engine do) and with each message encoded for itself (as WebLLM does).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmbuild.conversation.jinja import Chat, Rendered
from llmbuild.conversation.prompt import prefix_token_ids, prompt_parts
from llmbuild.conversation.templates import PLACEHOLDERS
from llmbuild.errors import InputError

_SYSTEM, _ASK, _MORE = "Answer in one word.", "What is 2 + 2?", "And 3 + 3?"
_THOUGHT = "<think>\nThe sum of both.\n</think>\n\n"


@dataclass(frozen=True, slots=True)
class Probe:
    """A conversation whose answer is due; `name` completes "with …"."""

    name: str
    messages: tuple[tuple[str, str], ...]

    @property
    def chat(self) -> Chat:
        return Chat(self.messages)

    @property
    def has_system(self) -> bool:
        return self.messages[0][0] == "system"


def _talk(*texts: str, system: str | None = None) -> tuple[tuple[str, str], ...]:
    turns = tuple((("user", "assistant")[index % 2], text) for index, text in enumerate(texts))
    return turns if system is None else (("system", system), *turns)


PROBES = (
    Probe("a question", _talk(_ASK)),
    Probe("a system message", _talk(_ASK, system=_SYSTEM)),
    Probe("several turns", _talk(_ASK, "Four.", _MORE, "Six.", "Thanks")),
    Probe("several turns and a system message", _talk(_ASK, "Four.", _MORE, system=_SYSTEM)),
    Probe("thinking turns", _talk(_ASK, _THOUGHT + "Four.", _MORE, _THOUGHT + "Six.", "Thanks")),
    Probe("blanks at the ends of a question", _talk(f"  {_ASK} \n")),
    Probe("blanks at the ends of an answer", _talk(_ASK, " Four.\n\n", _MORE)),
    Probe("blanks at the ends of what follows a thought", _talk(_ASK, _THOUGHT + " Four.\n\n", _MORE)),
    Probe("blanks at the ends of a system message", _talk(_ASK, system=f"\n{_SYSTEM}  ")),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference on a probe: the two texts, and the words that tell it."""

    probe: str
    own: str
    other: str
    words: str

    @property
    def sentence(self) -> str:
        return f"with {self.probe}, {self.words}"


class Encoder:
    """A checkpoint's tokenizer, as much of it as templates need."""

    def __init__(self, tokenizer_json: bytes, named: Iterable[str] = ()) -> None:
        """`named` are the tokens that other files of the tokenizer name.  Raises InputError for a tokenizer that the library does
        not read."""
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        except Exception as error:  # The library raises no narrower class.
            raise InputError("the tokenizer cannot be read", where="tokenizer.json", why=str(error)[:200]) from error
        self._tokenizer = tokenizer
        # Templates that are tried one after another share most of their texts.
        self._known: dict[str, list[int]] = {}
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.added: Mapping[str, int] = {
            token.content: number for number, token in tokenizer.get_added_tokens_decoder().items() if token.content
        }
        self._named = set(named)

    def lacking(self, texts: Iterable[str]) -> list[str]:
        """The tokens in these texts that transformers adds by other files, and that this tokenizer cuts into pieces."""
        whole = "\0".join(texts)
        strange = sorted(token for token in self._named - self.added.keys() if token and token in whole)
        return [token for token in strange if len(self.encode(token)) != 1]

    def encode(self, text: str) -> list[int]:
        """Raises InputError for a text that the tokenizer has no tokens for."""
        if text in self._known:
            return self._known[text]
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # The library raises no narrower class.
            why = f"{text[:40]!r}: {error}"[:200]
            raise InputError("the tokenizer cannot encode a text", where="tokenizer.json", why=why) from error
        self._known[text] = ids
        return ids

    def token(self, number: int) -> str:
        """The text of one token, for messages and for texts that begin with ids."""
        return str(self._tokenizer.id_to_token(number) or f"[token {number}]")


def differences(
    template: Mapping[str, Any], rendered: Mapping[Probe, Rendered], encoder: Encoder
) -> Iterator[Difference]:
    """The probes that a resolved template gets wrong.  Those that the chat template refuses have nothing to be equal to."""
    for probe, answer in rendered.items():
        if answer.text is not None:
            found = _difference(template, probe, answer.text, encoder)
            if found is not None:
                yield found


def text_of(template: Mapping[str, Any], probe: Probe, encoder: Encoder) -> str:
    """A probe as a resolved template renders it, with the tokens that precede it as text."""
    return "".join([*map(encoder.token, prefix_token_ids(template)), *_parts(template, probe)])


def _parts(template: Mapping[str, Any], probe: Probe) -> list[str]:
    system = probe.messages[0][1] if probe.has_system else None
    turns = [*probe.messages[probe.has_system :], ("assistant", None)]
    return [part.replace(PLACEHOLDERS["function"], "") for part in prompt_parts(template, turns, system)]


def _difference(template: Mapping[str, Any], probe: Probe, own: str, encoder: Encoder) -> Difference | None:
    expected = encoder.encode(own)
    prefix, parts = prefix_token_ids(template), _parts(template, probe)
    whole = [*prefix, *encoder.encode("".join(parts))]
    apart = [*prefix, *(number for part in parts for number in encoder.encode(part))]
    if whole == expected == apart:
        return None
    other = text_of(template, probe, encoder)
    if own != other:
        words = f"the chat template writes {_around(own, other)} where the fields of MLC write {_around(other, own)}"
    elif whole != expected:
        words = _tokens_differ(expected, whole, encoder, "the prompt")
    else:
        words = _tokens_differ(expected, apart, encoder, "each message by itself, as in browsers,")
    return Difference(probe.name, own, other, words)


def _around(text: str, other: str) -> str:
    """The place where a text begins to differ from another, quoted."""
    at = next((index for index, pair in enumerate(zip(text, other, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(text), len(other)) if at is None else at
    start, end = max(at - 30, 0), at + 40
    cut = text[start:end]
    return repr(("…" if start else "") + cut + ("…" if end < len(text) else ""))


def _tokens_differ(expected: Sequence[int], found: Sequence[int], encoder: Encoder, what: str) -> str:
    def told(ids: Sequence[int], at: int) -> str:
        return f"{ids[at]} ({encoder.token(ids[at])!r})" if at < len(ids) else "none"

    at = next(
        (index for index, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]),
        min(len(expected), len(found)),
    )
    return f"token {at} should be {told(expected, at)}, and encoding {what} gives {told(found, at)}"
