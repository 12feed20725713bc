"""The provenance of each result, as in-toto statements with SLSA build provenance.

Formats: https://in-toto.io/Statement/v1 and https://slsa.dev/provenance/v1.  A statement is a function of the plan and
the results: no times, no paths of this machine, no names of it.  Two clones of a project write the same bytes.

`<output>/provenance/<result>.intoto.json` describes one result, a library or a model directory: its files (subjects,
named relative to the output directory), the parameters of every step that led to it, the files of its sources, the steps
with their actions and outputs, and the tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from llmbuild.canonical import Digest, Json
from llmbuild.engine.labels import make_label
from llmbuild.engine.task import AllFiles, Files, Install, JsonFields, Selection, Task
from llmbuild.engine.tree import Tree
from llmbuild.sources.kinds import known_kind
from llmbuild.version import __version__

DIRECTORY = "provenance"
SUFFIX = ".intoto.json"

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:llmbuild:build:v1"
BUILDER = "urn:llmbuild:builder:local"
ACTION = "urn:llmbuild:action:"


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The result of a task: the digest of its action, and its output."""

    action: Digest
    tree: Tree


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement about the result at `artifact` (both are paths in the project)."""

    path: str
    artifact: str
    data: bytes

    @property
    def owner(self) -> str:
        """The label under which the file is installed."""
        return owner_of(self.artifact)


def owner_of(artifact: str) -> str:
    return make_label("provenance", PurePosixPath(artifact).name)


def statement_path(output: str, artifact: str) -> str:
    """The path of a result's statement in the project."""
    return f"{output}/{DIRECTORY}/{PurePosixPath(artifact).name}{SUFFIX}"


def statements(output: str, tasks: Sequence[Task], done: Mapping[str, TaskResult]) -> list[Statement]:
    """One statement for each result all of whose tasks are done.  `output` is the project's output directory.  Pure."""
    by_label = {task.label: task for task in tasks}
    makers: dict[str, list[tuple[Task, Install]]] = {}
    for task in tasks:
        for one in task.installs:
            makers.setdefault(one.dest, []).append((task, one))
    made = []
    for artifact, of in makers.items():
        steps = _closure([task for task, _ in of], by_label)
        if any(task.label not in done for task in steps):
            continue
        value = _statement(output, artifact, of, steps, done)
        data = (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
        made.append(Statement(statement_path(output, artifact), artifact, data))
    return made


def _statement(
    output: str,
    artifact: str,
    of: Sequence[tuple[Task, Install]],
    steps: Sequence[Task],
    done: Mapping[str, TaskResult],
) -> Json:
    subjects: dict[str, Digest] = {}
    for task, install in of:
        for path, digest in _installed(done[task.label].tree, install):
            subjects[str(PurePosixPath(path).relative_to(output))] = digest
    last = of[-1][0]
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "artifact": str(PurePosixPath(artifact).relative_to(output)),
                    "model": last.model,
                    "quantization": last.scheme,
                    "platform": last.platform,
                    "steps": {task.label: {"kind": task.kind, "parameters": dict(task.params)} for task in steps},
                },
                "internalParameters": {
                    "tools": {task.label: dict(task.tools) for task in steps},
                },
                "resolvedDependencies": [*_sources(steps, done), *_steps(steps, done)],
            },
            "runDetails": {"builder": {"id": BUILDER, "version": {"llmbuild": __version__}}},
        },
    }


def _closure(tasks: Iterable[Task], by_label: Mapping[str, Task]) -> list[Task]:
    """The tasks and all upstream of them, each after its dependencies, in an order that depends on nothing else."""
    ordered: dict[str, Task] = {}

    def visit(task: Task) -> None:
        if task.label not in ordered:
            for _, ref in sorted(task.inputs.items()):
                visit(by_label[ref.task])
            ordered[task.label] = task

    for task in tasks:
        visit(task)
    return list(ordered.values())


def _installed(tree: Tree, install: Install) -> list[tuple[str, Digest]]:
    """The files of an install with their paths in the project, as `engine.install` lays them out."""
    source, dest = install.source.rstrip("/"), install.dest.rstrip("/")
    if not source:
        return [(f"{dest}/{entry.path}", entry.digest) for entry in tree.files]
    exact = [(dest, entry.digest) for entry in tree.files if entry.path == source]
    below = [entry for entry in tree.files if entry.path.startswith(f"{source}/")]
    return exact or [(dest + entry.path[len(source) :], entry.digest) for entry in below]


def _sources(steps: Sequence[Task], done: Mapping[str, TaskResult]) -> list[Json]:
    """The files of sources that a step could read."""
    # The configuration of a preset has no input either, but it comes from llmbuild itself.
    fetched = {task.label: task for task in steps if not task.inputs and "source" in task.params}
    seen: dict[tuple[str, str], Digest] = {}
    for task in steps:
        for ref in task.inputs.values():
            if ref.task in fetched:
                tree = _selected(done[ref.task].tree, ref.select)
                seen.update({(ref.task, entry.path): entry.digest for entry in tree.files})
    found: list[Json] = []
    for (label, path), digest in sorted(seen.items()):
        entry: dict[str, Json] = {"name": f"{label}/{path}", "digest": {"sha256": digest}}
        uri = _uri(fetched[label])
        if uri is not None:
            entry["uri"] = uri
        entry["annotations"] = {"action": done[label].action, "file": path}
        found.append(entry)
    return found


def _selected(tree: Tree, select: Selection) -> Tree:
    match select:
        case AllFiles():
            return tree
        case Files(patterns):
            return tree.select(patterns)
        case JsonFields(file, _):
            return tree.select((file,))


def _uri(task: Task) -> str | None:
    """The URI of a source, None where it has none."""
    source = task.params.get("source")
    if not isinstance(source, Mapping):
        return None
    kind = known_kind(source.get("kind"))
    return None if kind is None else kind.uri(source, task.hints)


def _steps(steps: Sequence[Task], done: Mapping[str, TaskResult]) -> list[Json]:
    return [
        {
            "name": task.label,
            "uri": f"{ACTION}{done[task.label].action}",
            "digest": {"sha256": done[task.label].tree.digest},
        }
        for task in steps
    ]
