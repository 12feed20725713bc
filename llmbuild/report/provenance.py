"""Where each result came from, as in-toto statements with SLSA build provenance.

Formats: https://in-toto.io/Statement/v1 and https://slsa.dev/provenance/v1.  A statement is a function of the plan and
the results: no times, no paths of this machine, no names of it.  Two clones of a project write the same bytes.

`<output>/provenance/<result>.intoto.json` describes one result, a library or a model directory: its files (subjects,
named relative to the output directory), the parameters of every step that led to it, the files of its sources, the steps
with their actions and outputs, and the tools.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from llmbuild import __version__
from llmbuild.canonical import Digest, Json, digest_file, parse_digest
from llmbuild.engine.task import AllFiles, Files, Install, JsonFields, Selection, Task
from llmbuild.engine.tree import Tree
from llmbuild.errors import InputError, LlmbuildError, VerifyError

DIRECTORY = "provenance"
SUFFIX = ".intoto.json"

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:llmbuild:build:v1"
BUILDER = "urn:llmbuild:builder:local"
_ACTION = "urn:llmbuild:action:"


@dataclass(frozen=True, slots=True)
class Done:
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
    return f"provenance[{PurePosixPath(artifact).name}]"


def statement_path(output: str, artifact: str) -> str:
    """Where the statement of a result lies in the project."""
    return f"{output}/{DIRECTORY}/{PurePosixPath(artifact).name}{SUFFIX}"


def statements(output: str, tasks: Sequence[Task], done: Mapping[str, Done]) -> list[Statement]:
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
    output: str, artifact: str, of: Sequence[tuple[Task, Install]], steps: Sequence[Task], done: Mapping[str, Done]
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
    """The tasks and all upstream of them, each after what it depends on, in an order that depends on nothing else."""
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


def _sources(steps: Sequence[Task], done: Mapping[str, Done]) -> list[Json]:
    """The files of sources that a step could see."""
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
    """What a source is called everywhere: a package URL (https://github.com/package-url/purl-spec) or the URL itself.

    A local file has no such name; its digest is all that is said of it.
    """
    source = task.params.get("source")
    if not isinstance(source, Mapping):
        return None
    match source.get("kind"):
        case "pypi":
            return f"pkg:pypi/{source['name']}@{source['version']}#{source['path']}"
        case "hf":
            return f"pkg:huggingface/{source['repo']}@{source['commit']}"
        case "https":
            return str(task.hints["url"]) if "url" in task.hints else None
    return None


def _steps(steps: Sequence[Task], done: Mapping[str, Done]) -> list[Json]:
    return [
        {
            "name": task.label,
            "uri": f"{_ACTION}{done[task.label].action}",
            "digest": {"sha256": done[task.label].tree.digest},
        }
        for task in steps
    ]


# Checking.


@dataclass(frozen=True, slots=True)
class Checked:
    """What was compared: `files` of the result, files of `sources`, `steps`, and how many of those two the cache knows."""

    artifact: Path
    files: int
    sources: int
    steps: int
    known: int


Recorded = Callable[[Digest], Tree | None]
"""The output of an action as its trace has it; None where there is none."""


def check(statement: Path, recorded: Recorded) -> Checked:
    """Compare a result with its statement, and the statement's dependencies with what the cache knows of them.

    Raises VerifyError, or a MultiError, that names each file and both digests; InputError when the statement is none.
    """
    value = _read(statement)
    output = statement.parent.parent
    errors: list[LlmbuildError] = []
    try:
        definition = value["predicate"]["buildDefinition"]
        artifact = output / _inside(definition["externalParameters"]["artifact"])
        subjects = {_inside(one["name"]): parse_digest(one["digest"]["sha256"]) for one in value["subject"]}
        dependencies = [dict(one) for one in definition["resolvedDependencies"]]
        compared = [_compare(one, recorded, statement, errors) for one in dependencies]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _broken(statement, f"{type(error).__name__}: {error}") from error
    for name, digest in subjects.items():
        _compare_file(output / name, digest, statement, errors)
    if artifact.is_dir():
        for path in sorted(artifact.rglob("*")):
            name = path.relative_to(output).as_posix()
            if path.is_file() and name not in subjects:
                errors.append(
                    VerifyError("a file that the statement does not have", where=str(path), why=str(statement))
                )
    if errors:
        from llmbuild.errors import MultiError

        raise errors[0] if len(errors) == 1 else MultiError(errors)
    steps = sum("annotations" not in one for one in dependencies)
    return Checked(artifact, len(subjects), len(dependencies) - steps, steps, sum(compared))


def _compare_file(path: Path, expected: Digest, statement: Path, errors: list[LlmbuildError]) -> None:
    try:
        actual = digest_file(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        why = f"its statement has it with SHA-256 {expected}" if missing else error.strerror
        errors.append(
            VerifyError("the file is missing" if missing else "the file cannot be read", where=str(path), why=why)
        )
        return
    if actual != expected:
        errors.append(
            VerifyError(
                f"the file has SHA-256 {actual}",
                where=str(path),
                why=f"{statement} has {expected}",
                fix="run `llmbuild build --provenance`, which restores both; find out who changed the file",
            )
        )


def _compare(one: Mapping[str, Any], recorded: Recorded, statement: Path, errors: list[LlmbuildError]) -> bool:
    """Compare one dependency with the cache; whether the cache knows it."""
    expected = str(one["digest"]["sha256"])
    annotations = one.get("annotations")
    if annotations is not None:
        tree = recorded(parse_digest(annotations["action"]))
        if tree is None:
            return False
        actual = next((entry.digest for entry in tree.files if entry.path == annotations["file"]), "no such file")
    else:
        action = parse_digest(str(one["uri"]).removeprefix(_ACTION))
        tree = recorded(action)
        if tree is None:
            return False
        actual = tree.digest
    if actual != expected:
        errors.append(
            VerifyError(
                f"{one['name']} has SHA-256 {expected}",
                where=str(statement),
                why=f"the cache has {actual}",
                fix="run `llmbuild build --provenance`, which writes the statement anew",
            )
        )
    return True


def _read(statement: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(statement.read_bytes())
    except OSError as error:
        raise InputError("the statement cannot be read", where=str(statement), why=error.strerror) from error
    except ValueError as error:
        raise _broken(statement, str(error)) from error
    if not isinstance(value, dict) or value.get("_type") != STATEMENT_TYPE:
        raise _broken(statement, f"it is not of type {STATEMENT_TYPE}")
    if value.get("predicateType") != PREDICATE_TYPE:
        raise _broken(statement, f"its predicate is not {PREDICATE_TYPE}")
    definition = value["predicate"].get("buildDefinition", {}) if isinstance(value.get("predicate"), dict) else {}
    if not isinstance(definition, dict) or definition.get("buildType") != BUILD_TYPE:
        raise _broken(statement, f"its build type is not {BUILD_TYPE}")
    return value


def _inside(name: object) -> str:
    """A name of a statement as a path below the output directory; raises ValueError for one that leads out of it."""
    path = PurePosixPath(str(name))
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name} leads out of the output directory")
    return str(path)


def _broken(statement: Path, why: str) -> InputError:
    return InputError("not a statement of llmbuild", where=str(statement), why=why)
