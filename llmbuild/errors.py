"""Errors that a user can meet, and the exit code of each kind.

Every error that llmbuild expects carries one message: what is wrong, where, why, and what to do.  Anything else that
escapes is a bug of llmbuild and is reported as such.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from llmbuild.printable import either, printable

MOST_LETTERS, MOST_WORDS = 200, 2000
"""The longest word that `did_you_mean` compares, and the most words."""

MOST_TEXT = 10_000
"""The longest part of a message, in characters."""


class ExitCode(IntEnum):
    """The documented exit codes of every command (docs/exit-codes.md)."""

    OK = 0
    FAILED = 1  # a task failed, or a check (`plan --check`, `why`) found something stale
    USAGE = 2  # the command line or the manifest is wrong
    INPUT = 3  # a checkpoint, a template, an adapter or another input is wrong
    FETCH = 4  # a source could not be fetched, or its digest is not the promised one
    TOOLCHAIN = 5  # something that must be on the machine (a compiler, a wheel) is not
    STORE = 6  # the cache or the output cannot be written (disk full, permissions)
    VERIFY = 7  # `verify` or `build --check` found a difference
    INTERNAL = 70  # a bug in llmbuild
    INTERRUPTED = 130  # Ctrl-C or SIGTERM


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a file: `buildfile.toml:12: models.smollm2.source`."""

    file: str
    line: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return place if self.key is None else f"{place}: {self.key}"


class LlmbuildError(Exception):
    """An expected failure with one clear message.

    `what` is a sentence without a final dot, `why` a reason or None, `fix` what the user can do or None.  All are text that
    any file can store and any terminal can show: control characters and bytes that are not UTF-8 are escaped.
    """

    exit_code = ExitCode.FAILED

    def __init__(
        self, what: str, *, where: Where | str | None = None, why: str | None = None, fix: str | None = None
    ) -> None:
        self.what = _shown(what)
        self.where = _shown(str(where)) if where is not None else None
        self.why = _shown(why) if why is not None else None
        self.fix = _shown(fix) if fix is not None else None
        super().__init__(self.what)

    def __str__(self) -> str:
        """The message on one to four lines, as the terminal shows it after `error: `."""
        lines = [self.what if self.where is None else f"{self.where}: {self.what}"]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class UsageError(LlmbuildError):
    """The command line or the manifest is wrong."""

    exit_code = ExitCode.USAGE


class InputError(LlmbuildError):
    """A checkpoint, configuration, tokenizer, template or adapter is wrong."""

    exit_code = ExitCode.INPUT


class FetchError(LlmbuildError):
    """A source cannot be fetched or does not have the promised digest."""

    exit_code = ExitCode.FETCH


class ToolchainError(LlmbuildError):
    """A tool that the target needs is missing or does not work."""

    exit_code = ExitCode.TOOLCHAIN


class StoreError(LlmbuildError):
    """The store or the output directory cannot be read or written."""

    exit_code = ExitCode.STORE


class VerifyError(LlmbuildError):
    """A built artifact does not match its metadata or its reference."""

    exit_code = ExitCode.VERIFY


class Interrupted(LlmbuildError):
    """The build was ended by Ctrl-C or SIGTERM; nothing is half-written and the next build goes on from here."""

    exit_code = ExitCode.INTERRUPTED


class MultiError(LlmbuildError):
    """Several errors found in one pass, reported together; the exit code is the first one's."""

    def __init__(self, errors: Iterable[LlmbuildError]) -> None:
        self.errors = tuple(errors)
        super().__init__("")
        # The parts of each error are escaped and cut already.
        self.what = "\n".join(str(error) for error in self.errors)
        self.exit_code = self.errors[0].exit_code

    def __str__(self) -> str:
        return self.what


def as_one(errors: Sequence[LlmbuildError]) -> LlmbuildError:
    """The one error of a list, or a MultiError of several."""
    return errors[0] if len(errors) == 1 else MultiError(errors)


def raise_all(errors: Sequence[LlmbuildError]) -> None:
    """Raise the errors found in one pass, several as a MultiError; do nothing where there are none."""
    if errors:
        raise as_one(errors)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A sentence that proposes the nearest known words, or None when nothing is near.

    The time grows with the product of the words' lengths, so long words (no person wrote them) are skipped, and
    so are all but the first few thousand.
    """
    import difflib

    if len(word) > MOST_LETTERS:
        return None
    words = itertools.islice((other for other in known if len(other) <= MOST_LETTERS), MOST_WORDS)
    near = difflib.get_close_matches(word, words, n=3, cutoff=0.6)
    if not near:
        return None
    return "did you mean " + either(f"'{name}'" for name in near) + "?"


def _shown(text: str) -> str:
    """The text as a message shows it; a value from a file may have megabytes."""
    return printable(text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…")
