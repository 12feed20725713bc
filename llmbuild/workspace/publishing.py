"""Publishing what is built: which files go where, and sending them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from llmbuild.canonical import Json
from llmbuild.errors import FetchError, UsageError, did_you_mean
from llmbuild.jsontext import parse_json
from llmbuild.manifest.project import Project, Publish
from llmbuild.manifest.publish import destinations, refused_wish
from llmbuild.printable import several
from llmbuild.publishing.kind import Destination, Difference, Publication, Sent, Wishes
from llmbuild.publishing.kinds import split
from llmbuild.workspace.manifests import manifest_name
from llmbuild.workspace.place import owns_state, state_of
from llmbuild.workspace.publication import Origin, publication_of

if TYPE_CHECKING:
    from llmbuild.manifest.project import Combination

RECORD = "published.json"
"""In the state directory of a manifest: what was published last at each destination."""


@dataclass(frozen=True, slots=True)
class Published:
    """One destination, what publishing changed there (or would), and the reference of what is there now; None where nothing was
    published yet."""

    name: str
    difference: Difference
    reference: str | None


@dataclass(frozen=True, slots=True)
class _Goal:
    """One destination, open, and the cells of the matrix that go there."""

    destination: Destination
    cells: Sequence[Combination]
    table: Publish


class Watcher:
    """Is told of each destination, in its turn: by its name what publishing changes there, how far it is, and the result.  Its
    methods do nothing."""

    def difference(self, name: str, difference: Difference) -> None:
        """What will change, before anything of it is sent."""

    def progress(self, name: str, done: int, total: int) -> None:
        """Bytes that were sent, of as many at most; from any thread."""

    def published(self, done: Published) -> None:
        """The destination has it all."""


def chosen(project: Project, names: Sequence[str]) -> list[Publish]:
    """The [publish] tables with these names (none for all), and what texts with a colon say.  Raises UsageError."""
    if not names and not project.publish:
        raise UsageError(
            "the manifest names no destination",
            where=project.file,
            fix='add to = "hf:org/{model}-{quantization}-MLC" to a table [publish.hub], or name a destination',
        )
    found = []
    for name in names or list(project.publish):
        if ":" not in name and name not in project.publish:
            raise UsageError(
                f"no [publish] table is named '{name}'",
                where=project.file,
                fix=did_you_mean(name, project.publish) or f"name one, or a destination such as hf:{_repository(name)}",
            )
        found.append(Publish("", name) if ":" in name else project.publish[name])
    return found


def _repository(name: str) -> str:
    """A name that is meant as a repository of a hub as it is, else an example."""
    owner, _, rest = name.partition("/")
    return name if owner and rest and "/" not in rest else "org/name"


def publish(
    origin: Origin,
    project: Project,
    tables: Sequence[Publish],
    wishes: Wishes,
    *,
    dry_run: bool,
    offline: bool,
    watcher: Watcher,
) -> list[Published]:
    """Publish what the tables say of a project's models; with `dry_run` only look.  `wishes` come before those of the tables.

    Raises UsageError, LlmbuildError where a result is not up to date, and FetchError where a destination cannot be reached or
    refuses, or may not be asked (`offline`); every destination is looked at before anything is sent.
    """
    state = state_of(Path(project.root), manifest_name(project))
    goals = [goal for table in tables for goal in _goals(project, table, wishes, state)]
    _refuse_doubles(project, goals)
    if offline:
        raise FetchError(
            "publishing needs the network",
            where=goals[0].destination.name,
            why="--offline forbids it, and a dry run asks the destination too" if dry_run else "--offline forbids it",
            fix="publish without --offline, and with LLMBUILD_OFFLINE unset",
        )
    jobs = [(goal.destination, publication_of(origin, goal.cells, goal.table)) for goal in goals]
    differences = [destination.compare(publication) for destination, publication in jobs]
    for (destination, _), difference in zip(jobs, differences, strict=True):
        if not (dry_run or difference.empty):
            destination.require_login()
    done = []
    for (destination, publication), difference in zip(jobs, differences, strict=True):
        name, reference = destination.name, difference.reference
        watcher.difference(name, difference)
        if not dry_run:
            reference = destination.send(publication, difference, _counter(watcher, name, difference.size))
            _record(Path(project.root), state, name, reference, publication)
        done.append(Published(name, difference, reference))
        watcher.published(done[-1])
    return done


def _refuse_doubles(project: Project, goals: Sequence[_Goal]) -> None:
    """Raise UsageError where a destination is to be published at twice."""
    tables: dict[str, list[str]] = {}
    for goal in goals:
        tables.setdefault(goal.destination.name, []).append(goal.table.name)
    for destination, names in tables.items():
        if len(names) == 1:
            continue
        own = list(dict.fromkeys(name for name in names if name))
        if len(own) > 1:
            what, fix = f"two [publish] tables go to {destination}", "name the one to publish"
            raise UsageError(
                what, where=project.file, why=f"they are {several([f'[publish.{name}]' for name in own])}", fix=fix
            )
        raise UsageError(
            f"{destination} is named twice",
            why=f"the table [publish.{own[0]}] goes there too" if own and "" in names else None,
            fix="name it once",
        )


def _counter(watcher: Watcher, name: str, total: int) -> Sent:
    done, counting = 0, Lock()

    def sent(size: int) -> None:
        nonlocal done
        with counting:
            done += size
            watcher.progress(name, done, total)

    return sent


def _goals(project: Project, table: Publish, wishes: Wishes, state: Path) -> list[_Goal]:
    """Where a table goes to, and which cells of the matrix go to each."""
    asked = Wishes(
        table.private if wishes.private is None else wishes.private,
        table.revision if wishes.revision is None else wishes.revision,
    )
    refused = refused_wish(table.to, asked)
    if refused is not None:
        raise UsageError(f"{table.to} takes no '{refused[0]}'", why=f"only {refused[1]} destinations take it")
    goals = []
    for text, (model, scheme) in destinations(table, project.matrix).items():
        kind, place = split(text)
        destination = kind.open(place, asked, state / "publish")
        goals.append(_Goal(destination, _cells(project, table, model, scheme), table))
    return goals


def _cells(project: Project, table: Publish, model: str, scheme: str) -> list[Combination]:
    return [
        cell
        for cell in project.matrix
        if cell.model == model
        and scheme in ("", cell.scheme)
        and (table.schemes is None or cell.scheme in table.schemes)
    ]


def _record(root: Path, state: Path, name: str, reference: str, publication: Publication) -> None:
    """Note what was published; nothing of it is read back by llmbuild."""
    from llmbuild.engine import files

    if not owns_state(root, state):
        return
    path = state / RECORD
    try:
        value = parse_json(path.read_bytes())
    except (OSError, ValueError):
        value = {}
    known: dict[str, Json] = dict(value) if isinstance(value, dict) else {}
    known[name] = {"reference": reference, "files": {file.name: file.digest for file in publication.files}}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, (json.dumps(known, indent=2, sort_keys=True) + "\n").encode())
