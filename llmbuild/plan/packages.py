"""What the tasks of a package read, and their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from llmbuild.canonical import Json
from llmbuild.engine.labels import make_label
from llmbuild.engine.task import AllFiles, Files, InputRef, Selection
from llmbuild.manifest.packages import packaged_platform
from llmbuild.manifest.project import Package, Platform

RECORD_FILE = Files(("metadata.json",))
"""What a package reads of a lower task: the library's record, and no objects."""

_ALL = AllFiles()


@dataclass(frozen=True, slots=True)
class PackageParts:
    """The parameters and inputs of a package task; and of each join task that it needs the names of its libraries by input, by
    what the task is of."""

    params: Mapping[str, Json]
    inputs: Mapping[str, InputRef]
    joins: Mapping[tuple[str, ...], Mapping[str, Json]]


def package_parts(package: Package, platforms: Mapping[str, Platform]) -> PackageParts:
    """The parts of a package, whose models and libraries have tasks.

    An input has the label of its task as its name, unless that label has the package's name: no key has it.
    """
    inputs: dict[str, InputRef] = {}
    libraries: dict[tuple[str, str], list[Json]] = {}
    joined: dict[str, dict[str, Json]] = {}

    def add(label: str, select: Selection = _ALL, name: str = "") -> str:
        inputs[name or label] = InputRef(label, select)
        return name or label

    for one in package.libraries:
        of, platform = (one.model, one.scheme, one.platform), platforms[one.platform]
        link = add(make_label("link", *of), Files((f"lib.{platform.artifact}",)))
        record = add(make_label("lower", *of), RECORD_FILE)
        described = asdict(packaged_platform(platform))
        libraries.setdefault(of[:2], []).append({"platform": described, "file": link, "record": record})
        if one.archive is not None:
            joined.setdefault(one.archive, {})[link] = "-".join(of)
    members: list[Json] = [
        {
            "model": model,
            "scheme": scheme,
            "files": [add(make_label(kind, model, scheme)) for kind in ("quantize", "config")],
            "libraries": mine,
        }
        for (model, scheme), mine in libraries.items()
    ]
    joins = {join_of(package, word): names for word, names in joined.items()}
    archives = {
        word: add(make_label("join", *join_of(package, word)), name=f"archive {word}".strip()) for word in joined
    }
    sources = {name: add(make_label("fetch", package.name, name), name=f"source {name}") for name in package.sources}
    params: dict[str, Json] = {
        "kind": package.kind,
        "options": dict(package.options),
        "members": members,
        "archives": dict(archives),
        "sources": dict(sources),
    }
    return PackageParts(params, inputs, joins)


def join_of(package: Package, word: str) -> tuple[str, ...]:
    """What a join task is of, as its label has it."""
    return (package.name, word) if word else (package.name,)


def package_labels(package: Package) -> set[str]:
    """The labels of the tasks that a package alone needs, and its own."""
    words = {library.archive for library in package.libraries if library.archive is not None}
    return {
        make_label("package", package.name),
        *(make_label("join", *join_of(package, word)) for word in words),
        *(make_label("fetch", package.name, name) for name in package.sources),
    }
