"""Verifying results against their statements, and statements against the cache (report.provenance writes them).

A statement is not signed, and whoever can change the result can change it too.  An "ok" is therefore
narrow: the statement is about the named result, lists it whole, and has the digests of what is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from llmbuild.canonical import Digest, digest_file, parse_digest
from llmbuild.engine.tree import Tree
from llmbuild.errors import InputError, LlmbuildError, VerifyError, raise_all
from llmbuild.jsontext import parse_json
from llmbuild.report.provenance import ACTION, BUILD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE, SUFFIX


@dataclass(frozen=True, slots=True)
class CheckedStatement:
    """What was compared: `files` of the result, files of `sources`, `steps`, and how many of those two the cache has."""

    artifact: Path
    files: int
    sources: int
    steps: int
    known: int


Recorded = Callable[[Digest], Tree | None]
"""The output of an action by its trace; None where there is no trace."""


@dataclass(frozen=True, slots=True)
class _Dependency:
    """A file of a source (`file` in the output of `action`), or a step (its whole output)."""

    name: str
    digest: Digest
    action: Digest
    file: str | None


@dataclass(frozen=True, slots=True)
class _Statement:
    """The content of a statement; names are relative to the output directory."""

    artifact: str
    subjects: Mapping[str, Digest]
    dependencies: Sequence[_Dependency]


def check(statement: Path, recorded: Recorded, asked: Path | None = None) -> CheckedStatement:
    """Compare a result with its statement, and the statement's dependencies with their records in the cache.

    `asked` is the result that the user named, when it was not the statement.  Raises VerifyError, or a MultiError, that
    names each file and both digests; InputError when the file is no statement.
    """
    said = _parsed(statement)
    output = statement.parent.parent
    artifact = output / said.artifact
    errors: list[LlmbuildError] = []
    about = statement.name == PurePosixPath(said.artifact).name + SUFFIX
    if not about or (asked is not None and asked.absolute() != artifact.absolute()):
        errors.append(
            VerifyError(
                "the statement is about another result",
                where=str(statement),
                why=f"it is about {artifact}, and {asked or statement.name.removesuffix(SUFFIX)} was asked for",
                fix="run `llmbuild build --provenance`, which writes each statement anew",
            )
        )
    for name, digest in said.subjects.items():
        _compare_file(output / name, digest, statement, errors)
    for path in _uncovered(output, artifact, said.subjects):
        errors.append(VerifyError("a file that the statement does not have", where=str(path), why=str(statement)))
    known = sum(_compare(one, recorded, statement, errors) for one in said.dependencies)
    raise_all(errors)
    steps = sum(one.file is None for one in said.dependencies)
    return CheckedStatement(artifact, len(said.subjects), len(said.dependencies) - steps, steps, known)


def _uncovered(output: Path, artifact: Path, subjects: Mapping[str, Digest]) -> list[Path]:
    """The files in the directory of a result that are no subjects; a link to a directory counts, whatever it points to."""
    found: list[Path] = []
    for place, directories, names in os.walk(artifact):
        links = [name for name in directories if Path(place, name).is_symlink()]
        paths = (Path(place, name) for name in (*names, *links))
        found += [path for path in paths if path.relative_to(output).as_posix() not in subjects]
    return sorted(found)


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


def _compare(one: _Dependency, recorded: Recorded, statement: Path, errors: list[LlmbuildError]) -> bool:
    """Compare one dependency with the cache; return whether the cache has it."""
    tree = recorded(one.action)
    if tree is None:
        return False
    if one.file is None:
        actual: str = tree.digest
    else:
        actual = next((entry.digest for entry in tree.files if entry.path == one.file), "no such file")
    if actual != one.digest:
        errors.append(
            VerifyError(
                f"{one.name} has SHA-256 {one.digest}",
                where=str(statement),
                why=f"the cache has {actual}",
                fix="run `llmbuild build --provenance`, which writes the statement anew",
            )
        )
    return True


def _parsed(statement: Path) -> _Statement:
    value = _read(statement)
    try:
        definition = value["predicate"]["buildDefinition"]
        external = definition["externalParameters"]
        artifact = _inside(external["artifact"])
        subjects = {_inside(one["name"]): parse_digest(one["digest"]["sha256"]) for one in value["subject"]}
        dependencies = [_dependency(one) for one in definition["resolvedDependencies"]]
        steps = sorted(external["steps"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _broken(statement, f"{type(error).__name__}: {error}") from error
    if not subjects or len(subjects) != len(value["subject"]):
        raise _broken(statement, "it names no file, or one twice")
    outside = [name for name in subjects if name != artifact and not name.startswith(f"{artifact}/")]
    if outside:
        raise _broken(statement, f"its subject {outside[0]} is no part of {artifact}")
    if not steps or sorted(one.name for one in dependencies if one.file is None) != steps:
        raise _broken(statement, "its dependencies are not the steps that it lists")
    return _Statement(artifact, subjects, dependencies)


def _dependency(value: Mapping[str, Any]) -> _Dependency:
    digest = parse_digest(value["digest"]["sha256"])
    annotations = value.get("annotations")
    if annotations is not None:
        return _Dependency(str(value["name"]), digest, parse_digest(annotations["action"]), str(annotations["file"]))
    return _Dependency(str(value["name"]), digest, parse_digest(str(value["uri"]).removeprefix(ACTION)), None)


def _read(statement: Path) -> Mapping[str, Any]:
    try:
        value = parse_json(statement.read_bytes())
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
    if not isinstance(name, str) or "\0" in name:
        raise ValueError("a name is no text")
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name} leads out of the output directory")
    return str(path)


def _broken(statement: Path, why: str) -> InputError:
    return InputError("not a statement of llmbuild", where=str(statement), why=why)
