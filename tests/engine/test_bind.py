"""Binding narrows inputs to what a task declares."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmbuild.canonical import Digest, canonical_json, digest_bytes
from llmbuild.engine.action import JsonInput, TreeInput
from llmbuild.engine.bind import bind, project_fields
from llmbuild.engine.task import AllFiles, Choice, Files, InputRef, JsonFields, Task
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.errors import InputError


class World:
    """Blobs in memory and one upstream tree."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.blobs = {digest_bytes(data): data for data in files.values()}
        self.tree = Tree.of(FileEntry(name, digest_bytes(data), len(data)) for name, data in files.items())

    def read(self, digest: Digest) -> bytes:
        return self.blobs[digest]

    def digest(self, select: AllFiles | Files | JsonFields) -> Digest:
        task = Task("combine", "t", 1, {}, {"x": InputRef("up", select)}, {})
        return bind(task, {"up": self.tree}, self.read).action.digest


CONFIG = {"a": 1, "model": {"x": 2, "y": 3}, "temperature": 0.7}


def test_whole_trees_narrowed_trees_and_values() -> None:
    world = World({"c.json": json.dumps(CONFIG).encode(), "w.bin": b"w"})
    task = Task(
        "combine",
        "t",
        1,
        {"p": 1},
        {
            "all": InputRef("up"),
            "some": InputRef("up", Files(("*.bin",))),
            "value": InputRef("up", JsonFields("c.json", ("a", "model.x", "absent", "model.absent", "a.b"))),
        },
        {"tool": "1"},
        hints={"h": 1},
    )
    bound = bind(task, {"up": world.tree}, world.read)
    narrowed = world.tree.select(["*.bin"])
    value = canonical_json({"a": 1, "model": {"x": 2}})
    assert bound.action.inputs == {
        "all": TreeInput(world.tree.digest),
        "some": TreeInput(narrowed.digest),
        "value": JsonInput(digest_bytes(value)),
    }
    assert bound.blobs == (narrowed.to_bytes(), value)
    assert bound.action.hints == {"h": 1}
    assert (bound.action.params, bound.action.tools) == ({"p": 1}, {"tool": "1"})


@pytest.mark.parametrize(
    ("value", "tools"),
    [
        ({"kind": "b"}, {"tool": "1", "own": "of b"}),
        ({"kind": "c"}, {"tool": "1", "own": "of all"}),
        ({}, None),
        ({"kind": [1]}, None),
    ],
)
def test_a_field_of_an_input_chooses_a_tool(value: dict[str, Any], tools: dict[str, str] | None) -> None:
    world = World({"c.json": json.dumps(value).encode()})
    choice = Choice("own", "value", "kind", {"a": "of a", "b": "of b"}, "of all")
    inputs = {"value": InputRef("up", JsonFields("c.json", ("kind",)))}
    bound = bind(Task("combine", "t", 1, {}, inputs, {"tool": "1"}, choice=choice), {"up": world.tree}, world.read)
    assert bound.action.tools == (tools or {"tool": "1", "own": "of all"})


def test_only_what_is_selected_changes_the_digest() -> None:
    fields, files = JsonFields("c.json", ("a", "model")), Files(("w*",))
    before = World({"c.json": json.dumps(CONFIG).encode(), "w.bin": b"w"})
    hotter = World({"c.json": json.dumps({**CONFIG, "temperature": 1.0}, indent=2).encode(), "w.bin": b"w"})
    wider = World({"c.json": json.dumps({**CONFIG, "model": {"x": 9}}).encode(), "w.bin": b"w"})
    other = World({"c.json": json.dumps(CONFIG).encode(), "w.bin": b"W", "z": b""})
    assert before.digest(fields) == hotter.digest(fields) == other.digest(fields) != wider.digest(fields)
    assert before.digest(files) == hotter.digest(files) == wider.digest(files) != other.digest(files)
    assert len({world.digest(AllFiles()) for world in (before, hotter, wider, other)}) == 4


@pytest.mark.parametrize("data", [b"not json", b"[1]", None])
def test_a_projected_file_must_be_a_json_object(data: bytes | None) -> None:
    world = World({} if data is None else {"c.json": data})
    with pytest.raises(InputError):
        world.digest(JsonFields("c.json", ("a",)))


def test_projection() -> None:
    assert project_fields(CONFIG, ("model.y", "model.x", "a")) == {"a": 1, "model": {"x": 2, "y": 3}}
    assert project_fields(CONFIG, ("nothing", "a.deeper", "model.x.y")) == {}
    assert project_fields({"a": None}, ("a",)) == {"a": None}
