"""What is published of one model: its files as they were built, their provenance, and a model card.

A result that is not up to date is refused: what would be published is not what the manifest says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from llmbuild.canonical import Json
from llmbuild.checkpoints.names import CHAT_CONFIG
from llmbuild.engine.cas import MissingBlobError
from llmbuild.engine.deciding import Installation
from llmbuild.engine.deciding import destinations as installed_at
from llmbuild.engine.labels import make_label
from llmbuild.errors import LlmbuildError, UsageError
from llmbuild.jsontext import parse_json
from llmbuild.plan.narrow import narrow
from llmbuild.publishing.kind import CARD, Facts, File, Publication, Role
from llmbuild.quantization.tensor_index import INDEX_NAMES
from llmbuild.targets.compile_part import device_kind, is_cpu
from llmbuild.workspace.manifests import manifest_name
from llmbuild.workspace.memory import DeviceMemory, device_memory
from llmbuild.workspace.place import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmbuild.engine.store import Store
    from llmbuild.engine.tree import FileEntry, Tree
    from llmbuild.manifest.project import Combination, Project, Publish
    from llmbuild.plan.planner import Plan, Verdict
    from llmbuild.report.model_card import Library
    from llmbuild.workspace.snapshot import Snapshot

LIBRARIES, STATEMENTS = "libs", "provenance"
"""The folders of a publication."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where results come from: the whole project, its store, and a look at a part of the project as it is now."""

    project: Project
    store: Store
    look: Callable[[Project], Snapshot]


def publication_of(origin: Origin, cells: Sequence[Combination], publish: Publish) -> Publication:
    """What is published of the model that these cells of the matrix have in common.

    Raises UsageError where the model has nothing of the kind, LlmbuildError where a result is not up to date, and StoreError.
    """
    make = _checkpoint if publish.content == "checkpoint" else _model
    return make(origin, cells, publish)


def _model(origin: Origin, cells: Sequence[Combination], publish: Publish) -> Publication:
    """The model directory, its libraries, their statements and the model card."""
    from llmbuild.report.model_card import Card, model_card

    first = cells[0]
    if not first.weights:
        raise UsageError(
            f"{first.model} has no weights to publish", where=origin.project.file, why="it is made from a preset"
        )
    taken = [cell for cell in cells if publish.platforms is None or cell.platform in publish.platforms]
    project, snapshot = _planned(origin, taken or cells)
    plan = snapshot.plan()
    artifacts = (first.weights, *(cell.library for cell in taken))
    makers = [each for each in plan.verdicts if any(one.result in artifacts for one in each.task.installs)]
    _require_current(origin, makers, f"build -m {first.model} -q {first.scheme}")
    trees = _trees(origin.store, plan)
    files = []
    for maker in makers:
        label = maker.task.label
        for install in maker.task.installs:
            for entry, path in installed_at(Installation(label, trees[label], install)):
                name = _name(project, first, path)
                files.append(File(name, entry.digest, entry.size, _role(name), Path(project.root) / path))
    statements = _statements(project, plan, trees, artifacts)
    config = _json(next(file for file in files if file.name == CHAT_CONFIG))
    index = _json(next(file for file in files if file.name == INDEX_NAMES[0])).get("metadata")
    nbytes, bits = (_number(index, key) for key in ("ParamBytes", "BitsPerParam"))
    fetch = _fetch(plan, first.model)
    facts = Facts(
        first.model,
        first.scheme,
        _text(config, "model_type"),
        round(nbytes * 8 / bits) if nbytes and bits else None,
        project.schemes[first.scheme].dtype,
        publish.license or _license(origin.store, trees[fetch.task.label]),
    )
    card = Card(
        facts,
        _uri(fetch),
        config,
        sum(file.size for file in files if file.role == "weights"),
        _libraries(project, taken, device_memory(snapshot, plan)[0]),
        tuple(statement.name for statement in statements),
        tuple(map(str, project.schemes[first.scheme].overrides)),
    )
    return Publication.of([*files, *statements, File.of_bytes(CARD, "card", model_card(card).encode())], facts)


def _libraries(project: Project, cells: Sequence[Combination], memory: Sequence[DeviceMemory]) -> tuple[Library, ...]:
    """The libraries of these cells as the model card has them."""
    from llmbuild.packages.memory import sizes_of
    from llmbuild.report.model_card import Library

    known = {one.platform: (sizes_of(one.record).tokens, one.use()) for one in memory}
    return tuple(
        Library(
            _name(project, cell, cell.library),
            cell.platform,
            project.platforms[cell.platform].target,
            _device(project.platforms[cell.platform].compile),
            *known.get(cell.platform, ()),
        )
        for cell in cells
    )


def _device(compile_part: Mapping[str, Json]) -> str:
    """What MLC's engine calls the device that a library is for."""
    return "cpu" if is_cpu(compile_part) else device_kind(compile_part)


def _checkpoint(origin: Origin, cells: Sequence[Combination], publish: Publish) -> Publication:
    """The files of a model's source as they were fetched."""
    from llmbuild.sources.select import is_weights

    project, snapshot = _planned(origin, cells)
    plan = snapshot.plan()
    model = cells[0].model
    if project.models[model].source is None:
        raise UsageError(f"{model} has no checkpoint to publish", where=project.file, why="it is made from a preset")
    fetch = _fetch(plan, model)
    _require_current(origin, [fetch], f"build fetch -m {model}")
    tree = _trees(origin.store, plan)[fetch.task.label]
    files = [
        File(
            entry.path,
            entry.digest,
            entry.size,
            "weights" if is_weights(entry.path) else "config",
            _place(origin.store, entry),
        )
        for entry in tree.files
    ]
    return Publication.of(files, Facts(model, license=publish.license or _license(origin.store, tree)))


def _planned(origin: Origin, cells: Sequence[Combination]) -> tuple[Project, Snapshot]:
    """The part of the project that these cells are, and a look at it."""
    first = cells[0]
    project = narrow(
        origin.project,
        models=[first.model],
        schemes=list(dict.fromkeys(cell.scheme for cell in cells)),
        platforms=list(dict.fromkeys(cell.platform for cell in cells)),
    )
    return project, origin.look(project)


def _fetch(plan: Plan, model: str) -> Verdict:
    """The task that fetches a model's source."""
    return next(each for each in plan.verdicts if each.task.label == make_label("fetch", model))


def _trees(store: Store, plan: Plan) -> dict[str, Tree]:
    """The outputs of the tasks whose results are there, by label."""
    return {each.task.label: store.cas.get_tree(each.output) for each in plan.verdicts if each.output is not None}


def _require_current(origin: Origin, verdicts: Sequence[Verdict], command: str) -> None:
    """Raise LlmbuildError where a result is not as it would be built now."""
    stale = [verdict.task.label for verdict in verdicts if verdict.state != "cached"]
    if stale:
        name = manifest_name(origin.project)
        file = "" if name == MANIFEST else f" -f {name}"
        more = f", nor are {len(stale) - 1} more" if len(stale) > 1 else ""
        raise LlmbuildError(
            f"{stale[0]} is not up to date{more}",
            where=origin.project.file,
            why="what is published is what the manifest says now",
            fix=f"run `llmbuild {command}{file}`; `llmbuild why{file} '{stale[0]}'` tells what changed",
        )


def _statements(project: Project, plan: Plan, trees: Mapping[str, Tree], artifacts: Sequence[str]) -> list[File]:
    """The provenance of each result, whether or not the manifest asks for it beside the results."""
    from llmbuild.report.provenance import TaskResult, statements

    done = {
        each.task.label: TaskResult(each.action.digest, trees[each.task.label])
        for each in plan.verdicts
        if each.action is not None and each.task.label in trees
    }
    made = statements(project.output, [each.task for each in plan.verdicts], done)
    return [
        File.of_bytes(f"{STATEMENTS}/{PurePosixPath(one.path).name}", "statement", one.data)
        for one in made
        if one.artifact in artifacts
    ]


def _uri(fetch: Verdict) -> str | None:
    """The universal name of a model's source."""
    from llmbuild.sources.kinds import source_kind

    source = fetch.task.params["source"]
    assert isinstance(source, Mapping)
    return source_kind(str(source["kind"])).uri(source, fetch.task.hints)


def _name(project: Project, cell: Combination, path: str) -> str:
    """The name in a publication of a file of the project: a model's files are at the top, libraries in a folder."""
    place = PurePosixPath(path)
    if place.is_relative_to(cell.weights):
        return str(place.relative_to(cell.weights))
    return str(place.relative_to(project.output))


def _role(name: str) -> Role:
    if name.startswith(f"{LIBRARIES}/"):
        return "library"
    return "weights" if name.startswith("params_shard_") else "config"


def _place(store: Store, entry: FileEntry) -> Path:
    """Where the bytes of a file of the store are.  Raises MissingBlobError."""
    if store.cas.has(entry.digest, entry.size):
        return store.cas.path(entry.digest)
    pieces = store.cas.places.find(entry.digest)
    if pieces is None:
        raise MissingBlobError(entry.digest)
    return pieces.path


def _license(store: Store, fetched: Tree) -> str | None:
    """The license that the checkpoint's config.json names."""
    entry = next((entry for entry in fetched.files if entry.path == "config.json"), None)
    if entry is None or not store.cas.has(entry.digest, entry.size):
        return None
    try:
        value = parse_json(store.cas.get_bytes(entry.digest))
    except ValueError:
        return None
    return _text(value, "license") if isinstance(value, dict) else None


def _json(file: File) -> Mapping[str, Any]:
    value = parse_json(file.whole())
    return value if isinstance(value, dict) else {}


def _text(value: Mapping[str, Any], key: str) -> str | None:
    found = value.get(key)
    return found if isinstance(found, str) and found.isprintable() and len(found) <= 200 else None


def _number(value: Any, key: str) -> float | None:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, int | float) and not isinstance(found, bool) and found > 0 else None
