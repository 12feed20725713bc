"""What comes from outside as JSON is bounded, and refused in one sentence."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuild.canonical import parse_digest
from llmbuild.jsontext import MOST_DEPTH, parse_json

texts = st.text(st.characters(exclude_categories=("Cs",)))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_every_plain_value_passes(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_sentence(data: bytes) -> None:
    try:
        parse_json(data)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b"[" * (MOST_DEPTH + 1) + b"]" * (MOST_DEPTH + 1),
        b'{"a":' * (MOST_DEPTH + 1) + b"1" + b"}" * (MOST_DEPTH + 1),
        b"9" * 5000,
        b'"\\ud800"',
        b'{"\\udc00": 1}',
        b"[NaN]",
        b"-Infinity",
        b'"\xff"',
        b"9" * 301,
        b"1e999",
        b"",
    ],
)
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError) as refused:
        parse_json(data)
    assert "\n" not in str(refused.value)


def test_the_limits_themselves_pass() -> None:
    deepest = b"[" * MOST_DEPTH + b"]" * MOST_DEPTH
    assert parse_json(deepest, most_bytes=len(deepest)) is not None
    with pytest.raises(ValueError, match="bytes"):
        parse_json(deepest, most_bytes=len(deepest) - 1)


def test_a_pair_of_surrogates_is_text() -> None:
    assert parse_json(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


def test_values_are_counted_before_they_are_made() -> None:
    most = b"[" + b"[]," * 99 + b"[]]"
    assert len(parse_json(most, most_values=200)) == 100
    with pytest.raises(ValueError, match="more than 199 values"):
        parse_json(most, most_values=199)


def test_a_name_that_comes_twice() -> None:
    twice = b'{"b": {"a": 1, "a": 2}}'
    assert parse_json(twice) == {"b": {"a": 2}}
    with pytest.raises(ValueError, match="names 'a' twice"):
        parse_json(twice, unique=True)


def test_a_number_as_long_as_any_float() -> None:
    assert parse_json(b"9" * 300) == 10**300 - 1


def test_infinities_pass_where_they_may() -> None:
    assert parse_json(b"[Infinity]", numbers=True) == [float("inf")]


@pytest.mark.parametrize(
    "value", [None, 7, "", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", "../" + "0" * 61]
)
def test_what_is_no_digest(value: object) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal"):
        parse_digest(value)


def test_a_digest() -> None:
    assert parse_digest("0a" * 32) == "0a" * 32
