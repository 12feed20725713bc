"""A hub's answer is believed when every field is what it should be, and refused by the field's name otherwise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuild.sources.http import Promise
from llmbuild.sources.hub import Pin
from llmbuild.sources.hub_answer import is_commit, parse_revision

SHA256, SHA1 = "a" * 64, "b" * 40
ANSWER: dict[str, Any] = {
    "sha": "c" * 40,
    "siblings": [
        {"rfilename": "config.json", "size": 651, "blobId": SHA1},
        {"rfilename": "model.safetensors", "size": 5, "lfs": {"sha256": SHA256, "size": 5, "pointerSize": 134}},
        {"rfilename": "README.md"},
    ],
    "downloads": 3,
}


def test_the_right_answer() -> None:
    revision = parse_revision(json.dumps(ANSWER).encode())
    assert revision.commit == "c" * 40
    assert revision.files == {
        "config.json": Promise(651, git_sha1=SHA1),
        "model.safetensors": Promise(5, sha256=SHA256),
        "README.md": None,
    }


WRONG = [None, 5, -1, 1.5, True, "", "x", [], {}, [[]], 1 << 64, "9" * 64, "A" * 40]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("field", ["rfilename", "size", "blobId", "lfs", "lfs.sha256", "lfs.size"])
@pytest.mark.parametrize("value", WRONG)
def test_a_wrong_field(index: int, field: str, value: object) -> None:
    """What comes out is right, or the message names the field."""
    answer = json.loads(json.dumps(ANSWER))
    sibling = answer["siblings"][index]
    outer, _, inner = field.partition(".")
    if inner:
        sibling[outer] = {**sibling.get(outer, {}), inner: value}
    else:
        sibling[outer] = value
    try:
        files = parse_revision(json.dumps(answer).encode()).files
    except ValueError as error:
        assert f"siblings[{index}]." in str(error)
        return
    for name, promise in files.items():
        assert isinstance(name, str) and name
        if promise is not None:
            assert promise.size is None or (type(promise.size) is int and 0 <= promise.size < 1 << 63)
            assert promise.sha256 is None or len(promise.sha256) == 64
            assert promise.git_sha1 is None or is_commit(promise.git_sha1)


def test_names_that_are_there_twice() -> None:
    with pytest.raises(ValueError, match=r"siblings\[1\].rfilename is there twice"):
        parse_revision(b'{"siblings": [{"rfilename": "a"}, {"rfilename": "a"}]}')


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["sha", "siblings", "rfilename", "size", "lfs", "blobId", "sha256"]), inner)
    ),
    max_leaves=8,
)


@given(values)
def test_any_value(value: object) -> None:
    try:
        revision = parse_revision(json.dumps(value).encode())
    except ValueError as error:
        assert str(error)
        return
    Pin("c" * 40, {name: promise for name, promise in revision.files.items() if promise is not None}).to_json()
