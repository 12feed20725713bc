"""[publish.NAME]: destinations with {model} and {quantization} in them, and which results go there.  Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from llmbuild.errors import UsageError, did_you_mean
from llmbuild.manifest.project import Publish
from llmbuild.manifest.typed import hub_form
from llmbuild.publishing.kind import DestinationKind, Wishes
from llmbuild.publishing.kinds import check_wishes, kind_names, split

if TYPE_CHECKING:
    from llmbuild.manifest.problems import Problems
    from llmbuild.manifest.schema_results import PublishTable

_WORD = re.compile(r"\{([^{}]*)\}")
_WORDS = ("model", "quantization")


class Cell(Protocol):
    """A cell of the matrix."""

    @property
    def model(self) -> str: ...
    @property
    def scheme(self) -> str: ...
    @property
    def platform(self) -> str: ...


def destinations(publish: Publish, cells: Iterable[Cell]) -> dict[str, tuple[str, str]]:
    """Each destination with the model and the scheme ("" for a checkpoint) that go there, in the order of the matrix.

    Raises UsageError where `to` or what it becomes is no destination, where two models would go to one, or none to any.
    """
    wanted = dict.fromkeys(
        (cell.model, "" if publish.content == "checkpoint" else cell.scheme)
        for cell in cells
        if (publish.models is None or cell.model in publish.models)
        and (publish.schemes is None or cell.scheme in publish.schemes)
    )
    found: dict[str, tuple[str, str]] = {}
    for model, scheme in wanted:
        text = _expanded(publish, model, scheme)
        kind, place = _split(text)
        kind.check(place)
        other = found.setdefault(text, (model, scheme))
        if other != (model, scheme):
            raise UsageError(
                f"'{', '.join(filter(None, other))}' and '{', '.join(filter(None, (model, scheme)))}' both go to {text}",
                fix="write {model} and {quantization} into the destination, or select one",
            )
    if not found:
        raise UsageError("there is nothing to publish: no model of the matrix fits the selection")
    return found


def _split(text: str) -> tuple[DestinationKind, str]:
    """As `split`; the page and the bare name of a repository of a hub are errors that say how it is written."""
    try:
        return split(text)
    except UsageError as error:
        if (hub := hub_form(text)) is not None:
            repository = "/".join(hub.partition("@")[0].split("/")[:2])
            raise UsageError(error.what, why=error.why, fix=f"write {repository}") from error
        raise


def _expanded(publish: Publish, model: str, scheme: str) -> str:
    words = {"model": model} if publish.content == "checkpoint" else {"model": model, "quantization": scheme}

    def word(found: re.Match[str]) -> str:
        if found[1] not in words:
            near = None if found[1] in _WORDS else did_you_mean(found[1], words)
            raise UsageError(
                f"'{{{found[1]}}}' stands for nothing in '{publish.to}'",
                why="a checkpoint has no quantization" if found[1] in _WORDS else None,
                fix=near or "the words are " + " and ".join(f"{{{one}}}" for one in words),
            )
        return words[found[1]]

    return _WORD.sub(word, publish.to)


def refused_wish(to: str, wishes: Wishes) -> tuple[str, str] | None:
    """The first wish that the kind of a destination does not take, and which kinds do; None where it takes all.  Raises
    UsageError."""
    name = check_wishes(_split(to)[0], wishes)
    if name is None:
        return None
    return name, ", ".join(f"{one}:" for one in kind_names() if name in split(f"{one}:")[0].options)


def resolve_publish(
    tables: Mapping[str, PublishTable], cells: Sequence[Cell], problems: Problems
) -> dict[str, Publish]:
    """The tables whose values are right; what is wrong is added to `problems`."""
    found: dict[str, Publish] = {}
    for name, table in tables.items():
        path = ("publish", name)
        if table.to is None:
            if not problems.is_broken((*path, "to")) and not problems.is_misspelt((*path, "to")):
                problems.add(path, "has no destination", fix='add to = "hf:org/{model}-{quantization}-MLC"')
            continue
        known = {
            "models": [cell.model for cell in cells],
            "quantizations": [cell.scheme for cell in cells],
            "platforms": [cell.platform for cell in cells],
        }
        right = [_known(table, key, set(names), (*path, key), problems) for key, names in known.items() if names]
        publish = Publish(
            name,
            table.to,
            table.models,
            table.quantizations,
            table.platforms,
            table.content or "model",
            table.private,
            table.revision,
            table.license,
        )
        try:
            refused = refused_wish(table.to, Wishes(table.private, table.revision))
            if refused is not None:
                key, takers = refused
                problems.add((*path, key), f"only {takers} destinations take '{key}'", fix="remove it")
            if cells and all(right):
                destinations(publish, cells)
        except UsageError as error:
            problems.add((*path, "to"), error.what, why=error.why, fix=error.fix)
            continue
        found[name] = publish
    return found


def _known(table: PublishTable, key: str, names: Collection[str], path: tuple[str, ...], problems: Problems) -> bool:
    unknown = [name for name in getattr(table, key) or () if name not in names]
    for name in unknown:
        listed = ", ".join(sorted(names))
        fix = did_you_mean(name, names) or f"the matrix has {listed}"
        problems.add(path, f"no {key[:-1]} of the matrix is named '{name}'", fix=fix)
    return not unknown
