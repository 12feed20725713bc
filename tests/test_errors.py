"""Messages have an end, whatever they quote, and so has the look for near words."""

from __future__ import annotations

import time

import pytest

from llmbuild.errors import MOST_TEXT, InputError, MultiError, UsageError, did_you_mean, raise_all


def test_a_message_has_an_end() -> None:
    error = InputError("x" * 10**6, where="y" * 10**6, why="z" * 10**6, fix="w" * 10**6)
    assert len(str(error)) < 5 * MOST_TEXT
    assert error.what.endswith("…")


def test_several_errors_are_all_there() -> None:
    several = MultiError([InputError("x" * MOST_TEXT), InputError("last", why="because")])
    assert str(several) == "x" * MOST_TEXT + "\nlast\n  why: because"
    assert several.exit_code == 3


def test_near_words_are_found_in_time() -> None:
    began = time.monotonic()
    assert did_you_mean("a" * 10**6, ["a" * 10**6]) is None
    assert did_you_mean("layers.1.up", (f"{'x' * 1000}.{number}" for number in range(10**5))) is None
    assert did_you_mean("layers.1.up", ["layers.1.upp", "y" * 10**6]) == "did you mean 'layers.1.upp'?"
    assert time.monotonic() - began < 5


def test_several_errors_are_one_and_one_is_itself() -> None:
    first, second = InputError("a"), UsageError("b")
    raise_all([])
    with pytest.raises(InputError) as alone:
        raise_all([first])
    assert alone.value is first
    with pytest.raises(MultiError) as both:
        raise_all([first, second])
    assert both.value.errors == (first, second)
