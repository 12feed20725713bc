"""Binding: a task whose upstream outputs are known becomes an action.

This is where a task's view of its inputs is narrowed to what it declares, which is what gives early cutoff: when only
undeclared files or fields changed, the narrowed input has the same digest and so has the action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llmbuild.canonical import Digest, Json, canonical_json, digest_bytes
from llmbuild.engine.action import Action, Input, JsonInput, TreeInput
from llmbuild.engine.task import AllFiles, Choice, Files, JsonFields, Task
from llmbuild.engine.tree import Tree
from llmbuild.errors import InputError
from llmbuild.jsontext import parse_json


@dataclass(frozen=True, slots=True)
class Bound:
    """An action, and the blobs that must be in the store before it can run (narrowed trees, projected values)."""

    action: Action
    blobs: tuple[bytes, ...]


def project_fields(value: Json, fields: tuple[str, ...]) -> dict[str, Json]:
    """The named fields of a JSON object, nested as in the original; dots descend, absent fields are left out."""
    result: dict[str, Json] = {}
    for field in fields:
        source: Json = value
        target = result
        *parents, last = field.split(".")
        for part in parents:
            source = source.get(part) if isinstance(source, Mapping) else None
        if not isinstance(source, Mapping) or last not in source:
            continue
        for part in parents:
            nested = target.setdefault(part, {})
            if not isinstance(nested, dict):
                break
            target = nested
        else:
            target[last] = source[last]
    return result


def bind(task: Task, outputs: Mapping[str, Tree], read: Callable[[Digest], bytes]) -> Bound:
    """The task's action, given the output trees of its upstream tasks by label.

    `read` gives the content of a blob and is used only for JSON projections.  Nothing is written.  Raises InputError
    when a projected file is missing or is not a JSON object.
    """
    inputs: dict[str, Input] = {}
    blobs: list[bytes] = []
    tools, choice = task.tools, task.choice
    for name, ref in task.inputs.items():
        tree = outputs[ref.task]
        match ref.select:
            case AllFiles():
                inputs[name] = TreeInput(tree.digest)
            case Files(patterns):
                data = tree.select(patterns).to_bytes()
                inputs[name] = TreeInput(digest_bytes(data))
                blobs.append(data)
            case JsonFields(file, fields):
                value = _project_file(tree, ref.task, file, fields, read)
                data = canonical_json(value)
                inputs[name] = JsonInput(digest_bytes(data))
                blobs.append(data)
                if choice is not None and choice.input == name:
                    tools = {**tools, choice.tool: _chosen(choice, value)}
    action = Action(task.kind, task.version, task.params, inputs, tools, task.hints)
    return Bound(action, tuple(blobs))


def _project_file(
    tree: Tree, producer: str, file: str, fields: tuple[str, ...], read: Callable[[Digest], bytes]
) -> Mapping[str, Json]:
    entry = next((entry for entry in tree.files if entry.path == file), None)
    if entry is None:
        raise InputError(f"{producer} did not produce {file}", where=producer)
    try:
        value = parse_json(read(entry.digest))
    except ValueError as error:
        raise InputError(f"{file} is not JSON", where=producer, why=str(error)) from error
    if not isinstance(value, dict):
        raise InputError(f"{file} is not a JSON object", where=producer)
    return project_fields(value, fields)


def _chosen(choice: Choice, value: Mapping[str, Json]) -> str:
    decides = value.get(choice.field)
    return choice.identities.get(decides, choice.otherwise) if isinstance(decides, str) else choice.otherwise
