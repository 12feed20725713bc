"""A tokenizer.json from vocab.json and merges.txt: byte-level BPE in the manner of the class that transformers has for it.

What is written is checked against another implementation of the same rules, in Python: the one that GPT-2 was published with.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from llmbuild.checkpoints.bpe_merges import MAX_PIECE, MAX_WAYS
from llmbuild.checkpoints.gguf_tokenizer import PRE_TOKENIZERS
from llmbuild.conversation.added_tokens import AddedToken, AddedTokens
from llmbuild.conversation.hard_texts import HARD_TEXTS, around, compare, cut_at
from llmbuild.conversation.tokenizer_json import Part, bpe, load, write
from llmbuild.errors import InputError, Where

MOST_TOKENS = 1_000_000
"""Of a vocabulary, as of a SentencePiece model."""
CHECKED_TOKENS = 256
"""Tokens of the vocabulary whose own text is compared, and added tokens that are."""
CHECKED_LENGTH = 64
"""Characters of such a token: the time of the reference grows with their square."""

VOCAB, MERGES = "vocab.json", "merges.txt"

_END = "<|endoftext|>"


@dataclass(frozen=True, slots=True)
class ByteLevelRules:
    """How a class of transformers cuts text.  `split` is a name of `PRE_TOKENIZERS`; `words` is the same for `_proxy`'s text."""

    split: str
    words: str
    normal_form: bool = False
    defaults: Mapping[str, str | None] = field(default_factory=dict)


_GPT2_WORDS = r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"
_QWEN2_WORDS = (
    r"(?i:'(?:[stmd]|re|ve|ll))|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ENDS = dict.fromkeys(("bos_token", "eos_token", "unk_token"), _END)

BYTE_LEVEL: Mapping[str, ByteLevelRules] = {
    "GPT2Tokenizer": ByteLevelRules("gpt-2", _GPT2_WORDS, defaults=_ENDS),
    "GPTNeoXTokenizer": ByteLevelRules(
        "gpt-2", _GPT2_WORDS, normal_form=True, defaults={**_ENDS, "pad_token": "<|padding|>"}
    ),
    "Qwen2Tokenizer": ByteLevelRules(
        "qwen2", _QWEN2_WORDS, normal_form=True, defaults=dict.fromkeys(("eos_token", "unk_token", "pad_token"), _END)
    ),
}
"""By the name of the class, without "Fast"."""


def make_byte_level(
    vocab: Mapping[str, Any], merges: bytes, added: AddedTokens, config: Mapping[str, Any], rules: ByteLevelRules
) -> str:
    """The text of tokenizer.json; raises InputError when a file is not valid or what is made differs from the rules."""
    _check_vocab(vocab)
    pairs = _merges(merges, vocab)
    prefix = config.get("add_prefix_space") is True
    splits = PRE_TOKENIZERS[rules.split].splits
    level: Part = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": not splits}
    cuts: list[Part] = [
        {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False} for split in splits
    ]
    text = write(
        bpe(vocab, pairs),
        added,
        normalizer={"type": "NFC"} if rules.normal_form else None,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [*cuts, level]} if cuts else level,
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        config=config,
        where=VOCAB,
    )
    _check(text, _Reference(vocab, pairs, rules, prefix), added)
    return text


def _check_vocab(vocab: Mapping[str, Any]) -> None:
    if not 0 < len(vocab) <= MOST_TOKENS:
        raise InputError(f"has {len(vocab)} tokens; 1 to {MOST_TOKENS} are possible", where=VOCAB)
    seen: set[int] = set()
    for token, number in vocab.items():
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 31:
            raise InputError("must be a token's number", where=Where(VOCAB, key=token[:60]))
        if number in seen:
            raise InputError(f"has number {number}, as another token", where=Where(VOCAB, key=token[:60]))
        seen.add(number)


def _merges(data: bytes, vocab: Mapping[str, Any]) -> list[list[str]]:
    """The pairs of merges.txt.  Lines that begin with "#version" are not merges; other ones with "#" are."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8", where=MERGES, why=str(error)) from error
    most = MAX_WAYS * len(vocab) + MAX_PIECE
    if (count := text.count("\n")) > most:
        raise InputError(f"has {count} lines, and {most} are the most for {len(vocab)} tokens", where=MERGES)
    pairs = []
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines, 1):
        if line.startswith("#version"):
            continue
        pair = line.removesuffix("\r").split(" ")
        if len(pair) != 2 or any(part not in vocab for part in (*pair, "".join(pair))):
            raise InputError(
                f"{line[:60]!r} does not join two tokens of vocab.json to a third", where=Where(MERGES, number)
            )
        pairs.append(pair)
    return pairs


class _Reference:
    """The rules in Python."""

    def __init__(
        self, vocab: Mapping[str, int], pairs: Iterable[list[str]], rules: ByteLevelRules, prefix: bool
    ) -> None:
        self.vocab = vocab
        self._rules = rules
        self._words = re.compile(rules.words, re.ASCII)
        self.prefix = prefix
        self._ranks = {(left, right): rank for rank, (left, right) in enumerate(pairs)}
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = (byte for byte in range(256) if byte not in printable)
        self.letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}

    def normal(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self._rules.normal_form else text

    def encode(self, text: str) -> list[int]:
        """The numbers of a text in which no added token is."""
        text = self.normal(text)
        each = self._rules.split != "gpt-2"
        if self.prefix and text and not each and not text.startswith(" "):
            text = f" {text}"
        ids: list[int] = []
        for match in self._words.finditer(_proxy(text)):
            word = text[match.start() : match.end()]
            if self.prefix and each and not word.startswith(" "):
                word = f" {word}"
            letters = (self.letters[byte] for byte in word.encode())
            # A letter that the vocabulary lacks is left out, as `tokenizers` does without an unknown token.
            ids += [self.vocab[part] for part in self._joined([letter for letter in letters if letter in self.vocab])]
        return ids

    def _joined(self, parts: list[str]) -> list[str]:
        while len(parts) > 1:
            best = min(
                ((self._ranks[pair], pair) for pair in pairwise(parts) if pair in self._ranks),
                default=None,
            )
            if best is None:
                break
            pair, joined, at = best[1], [], 0
            while at < len(parts):
                if tuple(parts[at : at + 2]) == pair:
                    joined.append("".join(pair))
                    at += 2
                else:
                    joined.append(parts[at])
                    at += 1
            parts = joined
        return parts


_BLANKS = frozenset("\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {chr(code) for code in range(0x2000, 0x200B)}


def _proxy(text: str) -> str:
    """The text with an ASCII character of the same class for every other one: letters, numbers, blanks, the rest.

    Python's regular expressions have no classes of Unicode's categories.
    """

    def of(letter: str) -> str:
        if letter < "\x80":
            return letter
        if letter in _BLANKS:
            return "\v"
        return {"L": "z", "N": "0"}.get(unicodedata.category(letter)[0], "$")

    return "".join(map(of, text))


def _check(text: str, reference: _Reference, added: AddedTokens) -> None:
    """Compare what the library makes of a tokenizer.json with the reference."""
    tokenizer = load(text, VOCAB)
    known = {token.content: token for token in added.tokens}
    numbers = {content: tokenizer.token_to_id(content) for content in known}

    def made(one: str) -> list[int]:
        ids: list[int] = tokenizer.encode(one, add_special_tokens=False).ids
        return ids

    def original(one: str) -> list[int]:
        ids: list[int] = []
        for place, part in enumerate(cut_at(one, known)):
            ids += [numbers[part]] if place % 2 else reference.encode(part)
        return ids

    texts = [*HARD_TEXTS, *around(_some([token.content for token in added.tokens if token.plain])), *_own(reference)]
    texts = [one for one in texts if _comparable(one, reference, known)]
    compare(texts, made, original, VOCAB, "tokens")
    if not reference.prefix and all(letter in reference.vocab for letter in reference.letters.values()):
        plain = [one for one in texts if not any(content in one for content in known)]
        compare(plain, lambda one: tokenizer.decode(made(one)), reference.normal, VOCAB, "text")


def _own(reference: _Reference) -> list[str]:
    """The texts of some tokens of the vocabulary."""
    bytes_of = {letter: byte for byte, letter in reference.letters.items()}
    found = []
    for token in _some([token for token in reference.vocab if len(token) <= CHECKED_LENGTH]):
        if all(letter in bytes_of for letter in token):
            found.append(bytes(bytes_of[letter] for letter in token).decode("utf-8", "replace"))
    return found


def _some(values: list[str]) -> list[str]:
    return values[:: max(1, len(values) // CHECKED_TOKENS)]


def _comparable(text: str, reference: _Reference, known: Mapping[str, AddedToken]) -> bool:
    """Whether only plain tokens are in a text, found before normalization as after it."""
    normal = reference.normal(text)
    inside = [token for content, token in known.items() if content in text or content in normal]
    return all(token.plain for token in inside) and (normal == text or not inside)
