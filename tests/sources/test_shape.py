"""What a fetch is asked for may come from a record of another machine: it is right, or one error says what is not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuild.errors import StoreError
from llmbuild.sources import fetch
from llmbuild.sources.shape import ShapeError, check_fetch

SHA256, COMMIT = "a" * 64, "b" * 40
PIN = {"config.json": {"sha256": SHA256, "size": 2}}
RIGHT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"source": {"kind": "path"}, "files": {"config.json": SHA256}}, {"path": "/models/x"}),
    ({"source": {"kind": "gguf"}, "files": {"model.gguf": SHA256}}, {"path": "/models/x.gguf"}),
    ({"source": {"kind": "hf", "repo": "org/x", "commit": COMMIT}, "files": {}}, {"files": PIN, "have": "/store"}),
    ({"source": {"kind": "https", "sha256": SHA256, "form": "tar"}, "files": {}}, {"url": "https://h/x.tar"}),
    ({"source": {"kind": "pypi", "name": "x", "version": "1", "path": "x.gguf"}, "files": {}}, {"offline": True}),
]


@pytest.mark.parametrize(("params", "hints"), RIGHT)
def test_the_right_shape(params: dict[str, Any], hints: dict[str, Any]) -> None:
    check_fetch(params, hints)


@pytest.mark.parametrize(
    ("kind", "keys", "value"),
    [
        (0, ("source",), None),
        (0, ("source", "kind"), []),
        (0, ("source", "kind"), "ftp"),
        (0, ("files",), {}),
        (0, ("files", "../x"), SHA256),
        (0, ("files", "config.json"), "..//../victim"),
        (0, ("hints", "path"), 5),
        (2, ("source", "commit"), "main"),
        (2, ("source", "format"), 1),
        (2, ("hints", "files"), {"/x": {"sha256": SHA256}}),
        (2, ("hints", "files"), {"x": {"sha256": "..//../victim"}}),
        (2, ("hints", "files"), {"x": {"sha256": SHA256, "size": -1}}),
        (2, ("hints", "have"), ["x"]),
        (3, ("source", "sha256"), "x"),
        (3, ("source", "form"), "exe"),
        (3, ("hints", "url"), None),
        (3, ("hints", "url"), "https://[h/x.tar"),
        (4, ("source", "name"), "--index-url=https://h"),
        (4, ("source", "version"), None),
    ],
)
def test_a_wrong_value(tmp_path: Path, kind: int, keys: tuple[str, ...], value: object) -> None:
    params, hints = RIGHT[kind]
    record: dict[str, Any] = copy.deepcopy({**params, "hints": hints})
    table = record
    for key in keys[:-1]:
        table = table[key]
    table[keys[-1]] = value
    with pytest.raises(StoreError, match="the record of a fetch is damaged") as caught:
        fetch(record, record["hints"], tmp_path, tmp_path, lambda *_: None)
    assert ".".join(keys[:1]) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just(SHA256),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["source", "kind", "files", "path", "url", "sha256", "size", "x"]), inner)
    ),
    max_leaves=6,
)


@given(st.integers(0, 4), st.sampled_from(["source", "files", "hints"]), json)
def test_any_value(kind: int, where: str, value: Any) -> None:
    params, hints = RIGHT[kind]
    try:
        if where == "hints" and isinstance(value, dict):
            check_fetch(params, {**hints, **value})
        else:
            check_fetch({**params, where: value}, hints)
    except ShapeError as error:
        assert str(error)
