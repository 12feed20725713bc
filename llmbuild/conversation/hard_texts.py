"""Texts on which tokenizers differ when they differ at all, for comparing a made tokenizer with its original."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from llmbuild.errors import InputError

HARD_TEXTS: tuple[str, ...] = (
    "",
    " ",
    "   ",
    "\n",
    "Hello world, this is a test.",
    " one blank before, two behind  ",
    "two  blanks   three    four     and\ttabs\t\tand \t both",
    "lines\nlines\n\nlines\n\n\n  lines\r\nlines\r\n\r\n \n lines \n",
    "0 12 345 6789 12,345.678 1e-5 0x7f 3rd 2026-11-29",
    "numbers of other kinds: \u00b2 \u00bd \u2167 \u0663 \u0967 \uff15",
    "it's we'll I'M they'd HE'S you've 'tis rock'n'roll \u2019s",
    "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m \u212b \u00f1and\u00fa stra\u00dfe \ufb01n",
    "\u65e5\u672c\u8a9e\u306e\u6587 \u4e2d\u6587\uff0c\u6587\u672c\u3002 \ud55c\uad6d\uc5b4 \uc601",
    "\u0420\u0443\u0441\u0441\u043a\u0438\u0439 "
    "\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac "
    "\u0639\u0631\u0628\u064a \u05e2\u05d1\u05e8\u05d9\u05ea "
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
    "\U0001f389 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 \u2764\ufe0f \U0001d54f",
    "\x00\x01\x07\x08\x0b\x0c\x1b\x1f\x7f\x85\xa0\xad\u200b\u2028\u2029\ufeff\ufffd",
    "blanks of other kinds: a\u00a0b\u2003c\u3000d\u202fe",
    "if (x == 1) { return arr[0]; } // c++ -> std::map<int, char*>",
    "\u2581 \u2581\u2581 \u0120 \u010a of tokenizers themselves <0x41>",
    "_under__score_ snake_case camelCase UPPER \"quotes\" 'single' `code` ~!@#$%^&*()-=+[]{}|;:<>?/\\",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa================",
)
"""Digits, blanks, ends of lines, accents in both forms, scripts, emoji, control characters, and signs of the tokenizers."""


def around(tokens: Iterable[str]) -> Iterator[str]:
    """Texts with tokens at the beginning, in the middle, twice in a row and at the end."""
    for token in tokens:
        yield f"{token}one {token} two{token}{token}\n{token}"


def cut_at(text: str, added: Iterable[str]) -> list[str]:
    """The text in parts, every second one an added token: the longest one of those that begin first."""
    found = sorted((token for token in added if token in text), key=len, reverse=True)
    if not found:
        return [text]
    parts, start, at = [], 0, 0
    while at < len(text):
        token = next((token for token in found if text.startswith(token, at)), None)
        if token is None:
            at += 1
            continue
        parts += [text[start:at], token]
        start = at = at + len(token)
    return [*parts, text[start:]]


def compare(
    texts: Iterable[str],
    made: Callable[[str], object],
    original: Callable[[str], object],
    where: str,
    of: str,
    same: Callable[[Any, Any], bool] = operator.eq,
) -> None:
    """Raise InputError for the first text of which the made tokenizer and the original make different things (`of`)."""
    for text in texts:
        ours, theirs = made(text), original(text)
        if not same(ours, theirs):
            raise InputError(
                f"cannot be written as a tokenizer.json: it would give other {of} for {text[:60]!r}",
                where=where,
                why=f"the original has {_short(theirs)}, the tokenizer.json would have {_short(ours)}",
                fix="put the tokenizer.json of the same model beside it",
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
