"""Reasons hold values that cannot change, whatever JSON a key or a file has."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuild.canonical import canonical_json
from llmbuild.plan.frozen import freeze, same

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_a_frozen_value_is_the_same_json_and_has_a_hash(value: object) -> None:
    frozen = freeze(value)
    assert canonical_json(frozen) == canonical_json(value)
    assert json.loads(json.dumps(frozen)) == value
    assert hash(frozen) == hash(freeze(json.loads(json.dumps(value))))
    assert freeze(frozen) == frozen


@given(values, values)
def test_values_are_the_same_when_their_canonical_bytes_are(one: object, other: object) -> None:
    assert same(one, other) == (canonical_json(one) == canonical_json(other))


@pytest.mark.parametrize(
    ("one", "other"), [(1, True), (1, 1.0), ([1], [True]), ({"a": [0]}, {"a": [False]}), (0.0, -0.0)]
)
def test_numbers_of_other_types_are_other_values(one: object, other: object) -> None:
    assert one == other
    assert not same(one, other)


def test_a_frozen_object_does_not_change() -> None:
    frozen = freeze({"a": [1]})
    assert isinstance(frozen, dict)
    for change in (
        lambda: frozen.__setitem__("b", 1),
        lambda: frozen.pop("a"),
        frozen.clear,
        lambda: frozen.update(b=1),
    ):
        with pytest.raises(TypeError):
            change()
    assert frozen == {"a": (1,)}
