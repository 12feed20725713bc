"""The package task: models, libraries and what else a kind of package asks for in, the finished folder out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbuild.checkpoints.names import CHAT_CONFIG
from llmbuild.engine.kind import Job, TaskKind
from llmbuild.errors import InputError
from llmbuild.jsontext import parse_json
from llmbuild.packages.folder import Folder
from llmbuild.packages.kind import InputFile, Library, Member, Package, Platform

RECORD = "metadata.json"


def run(job: Job) -> None:
    """Have the kind write the folder.

    `members` has a table for each model and scheme: their names, the inputs that `files` of its directory come from, and its
    `libraries`, each with the five facts of its platform and its inputs `file` (a link task's output) and `record` (a lower
    task's).  `archives` and `sources` map what `Package` has to inputs.
    """
    from llmbuild.packages.kinds import package_kind

    params: Mapping[str, Any] = job.params
    try:
        kind = package_kind(params["kind"])
    except KeyError:
        raise InputError(f"there is no kind of package '{params['kind']}'", where="kind") from None
    package = Package(
        params["options"],
        [_member(job, one) for one in params["members"]],
        {name: _only_file(job, source) for name, source in params["archives"].items()},
        {name: _files(job, source) for name, source in params["sources"].items()},
    )
    assert job.pass_on is not None
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        job.progress(done, 0, "files")

    kind.write(package, Folder(job.out, job.pass_on, count))


def _member(job: Job, table: Mapping[str, Any]) -> Member:
    files = {name: file for source in table["files"] for name, file in _files(job, source).items()}
    if CHAT_CONFIG not in files:
        raise InputError("is missing", where=CHAT_CONFIG)
    libraries = [
        Library(Platform(**one["platform"]), _only_file(job, one["file"]), _json(_files(job, one["record"]), RECORD))
        for one in table["libraries"]
    ]
    return Member(table["model"], table["scheme"], _json(files, CHAT_CONFIG), dict(sorted(files.items())), libraries)


def _files(job: Job, source: str) -> dict[str, InputFile]:
    root = job.inputs[source]
    return {
        one.path: InputFile(source, one.path, root / one.path, one.digest, one.size) for one in job.trees[source].files
    }


def _only_file(job: Job, source: str) -> InputFile:
    files = _files(job, source)
    if len(files) != 1:
        raise InputError(f"has {len(files)} files in the place of one", where=source)
    return next(iter(files.values()))


def _json(files: Mapping[str, InputFile], name: str) -> Mapping[str, Any]:
    """The JSON object in a file.  Caches are shared, so it is checked."""
    try:
        value = parse_json(files[name].path.read_bytes())
    except (KeyError, OSError, ValueError) as error:
        raise InputError("cannot be read", where=name, why=str(error)) from error
    if not isinstance(value, dict):
        raise InputError("is not a JSON object", where=name)
    return value


KIND = TaskKind(
    name="package",
    version=1,
    params=("kind", "options", "members", "archives", "sources"),
    sources=("llmbuild.tasks.package",),
    tools=("llmbuild package kind",),
    run=run,
)
