"""A naive build in memory that the engine is held against: it rebuilds everything, always, and knows what must be there.

It shares no code with the engine for selections, keys or caching: a key is the values themselves, not digests of them.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from llmbuild.canonical import canonical_json, digest_bytes
from llmbuild.engine.task import AllFiles, InputRef, Install, JsonFields, Selection, Task
from llmbuild.engine.task import Files as FilesOf
from llmbuild.engine.tree import FileEntry, Tree
from tests.helpers.proof_kinds import PARAMS, TOOLS, WORLD, Files, Value, kind_name, produce

SELECTIONS: tuple[Selection, ...] = (
    AllFiles(),
    FilesOf(("*",)),
    FilesOf(("b.txt",)),
    FilesOf(("sub/*", "b.*")),
    JsonFields("a.json", ("x",)),
    JsonFields("a.json", ("y.u", "absent")),
    JsonFields("a.json", ("y", "z")),
    FilesOf(("nothing",)),
)

Content: TypeAlias = "bytes | tuple[tuple[str, bytes], ...]"
"""What a blob holds: bytes, or for a tree its files."""

Key: TypeAlias = "tuple[Any, ...]"
"""Parameters, tools and inputs of a task as values."""


@dataclass
class Node:
    """A task of the model.  `values` has all parameters, declared or not; `inputs` are (upstream, selection)."""

    label: str
    params: tuple[str, ...]
    tools: tuple[str, ...]
    values: dict[str, int]
    inputs: list[tuple[int, int]]
    installed: bool

    def task(self, labels: Sequence[str]) -> Task:
        return Task(
            kind_name(self.params, self.tools),
            self.label,
            1,
            {name: self.values[name] for name in self.params},
            {f"i{n}": InputRef(labels[up], SELECTIONS[how]) for n, (up, how) in enumerate(self.inputs)},
            {name: WORLD.tools[name] for name in self.tools},
            hints={"label": self.label},
            installs=(Install("", f"dist/{self.label}"),) if self.installed else (),
        )


def mixed(number: int) -> int:
    """A number whose bits all depend on all bits of `number`; 0 stays 0, so that the simplest case is still that."""
    number = number * 0x9E3779B97F4A7C15 % (1 << 64)
    return (number ^ number >> 29) * 0xBF58476D1CE4E5B9 % (1 << 64) >> 16


def decode_node(number: int, position: int) -> Node:
    """A node from the bits of a number: cheap to draw, and smaller numbers are simpler nodes."""

    def take(bits: int) -> int:
        nonlocal number
        low = number & ((1 << bits) - 1)
        number >>= bits
        return low

    number = mixed(number)
    inputs = [(max(0, position - 1 - take(2)), take(3)) for _ in range(take(2) if position else 0)]
    params = tuple(name for name in PARAMS if take(1))
    values = {name: take(2) % 3 for name in PARAMS}
    tools = tuple(name for name in TOOLS if take(1))
    return Node(f"t{position}", params, tools, values, inputs, bool(take(1)))


@dataclass(frozen=True)
class Ideal:
    """What a task must be: its key, its output, and the content of each input as it may see it."""

    key: Key
    output: Files
    seen: Mapping[str, Value]


def tree_of(files: Files) -> tuple[tuple[str, bytes], ...]:
    return tuple(sorted(files.items()))


def content_bytes(content: Content) -> bytes:
    """The bytes of the blob that holds a content."""
    if isinstance(content, bytes):
        return content
    return Tree.of(FileEntry(path, digest_bytes(data), len(data)) for path, data in content).to_bytes()


def content_name(content: Content) -> str:
    return digest_bytes(content_bytes(content))


def narrow(files: Files, selection: Selection) -> Value:
    """The part of an output that a selection lets through."""
    if isinstance(selection, JsonFields):
        whole = json.loads(files[selection.file])
        part: dict[str, Any] = {}
        for path in selection.fields:
            here, there = whole, part
            *above, last = path.split(".")
            for step in above:
                here, there = here[step], there.setdefault(step, {})
            if last in here:
                there[last] = here[last]
        result: dict[str, Any] = json.loads(json.dumps(part, sort_keys=True))
        return result
    patterns = selection.patterns if isinstance(selection, FilesOf) else ("*",)
    return {path: data for path, data in files.items() if any(fnmatch.fnmatchcase(path, p) for p in patterns)}


def rebuild_everything(nodes: Sequence[Node]) -> dict[str, Ideal]:
    """Every task from nothing, in order."""
    ideals: dict[str, Ideal] = {}
    for node in nodes:
        seen: dict[str, Value] = {}
        for n, (up, how) in enumerate(node.inputs):
            seen[f"i{n}"] = narrow(ideals[nodes[up].label].output, SELECTIONS[how])
        params = {name: node.values[name] for name in node.params}
        tools = {name: WORLD.tools[name] for name in node.tools}
        forms = tuple("json" if isinstance(SELECTIONS[how], JsonFields) else "tree" for _, how in node.inputs)
        key = (tuple(params.items()), tuple(tools.items()), forms, repr([seen[name] for name in sorted(seen)]))
        ideals[node.label] = Ideal(key, produce(params, tools, seen), seen)
    return ideals


@dataclass
class Previous:
    """The values a label was last built from."""

    key: Key
    params: dict[str, int]
    tools: dict[str, str]
    inputs: list[tuple[str, int]]
    seen: Mapping[str, Value]


@dataclass
class Oracle:
    """What a store must hold and know.

    `sound` are the contents whose blobs are there and right, `damaged` those whose blob has wrong bytes; `traces` the
    outputs of the keys that were built and whose record is there.
    """

    sound: set[Content] = field(default_factory=set)
    damaged: set[Content] = field(default_factory=set)
    names: dict[str, Content] = field(default_factory=dict)
    traces: dict[Key, Files] = field(default_factory=dict)
    actions: dict[str, Key] = field(default_factory=dict)
    previous: dict[str, Previous] = field(default_factory=dict)

    def whole(self, key: Key) -> bool:
        """Whether a result for this key is there with all its bytes."""
        output = self.traces.get(key)
        return output is not None and {tree_of(output), *output.values()} <= self.sound

    def add(self, content: Content) -> None:
        self.sound.add(content)
        self.damaged.discard(content)
        self.names[content_name(content)] = content

    def lose(self, content: Content, *, damaged: bool = False) -> None:
        self.sound.discard(content)
        self.damaged.discard(content)
        if damaged:
            self.damaged.add(content)

    def launched(self, node: Node, ideal: Ideal) -> None:
        """A task's narrowed inputs go into the store before it runs."""
        for n, (_, how) in enumerate(node.inputs):
            seen = ideal.seen[f"i{n}"]
            if isinstance(SELECTIONS[how], JsonFields):
                self.add(canonical_json(seen))
            elif not isinstance(SELECTIONS[how], AllFiles):
                self.add(tree_of(seen))

    def built(self, ideal: Ideal, action: str) -> None:
        """A task ran to its end."""
        for data in ideal.output.values():
            self.add(data)
        self.add(tree_of(ideal.output))
        self.traces[ideal.key] = ideal.output
        self.actions[action] = ideal.key

    def remember(self, node: Node, labels: Sequence[str], ideal: Ideal) -> None:
        """A build ended with this task done."""
        self.previous[node.label] = Previous(
            ideal.key,
            {name: node.values[name] for name in node.params},
            {name: WORLD.tools[name] for name in node.tools},
            [(labels[up], how) for up, how in node.inputs],
            ideal.seen,
        )
