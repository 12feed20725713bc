"""Why a task runs: one sum type with old and new values, made by comparing two keys, and rendered to one sentence.

Every consumer (plan, why, the terminal, JSON, a CI summary) shows the same value.  There is no "unknown": a reason that
cannot be named would be a bug of the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Protocol, TypeAlias

from llmbuild.canonical import Digest, Json, known_digest
from llmbuild.engine.action import Action, Input, JsonInput, TreeInput
from llmbuild.engine.tree import Tree
from llmbuild.plan.changed_libraries import libraries_changed
from llmbuild.plan.frozen import freeze, same
from llmbuild.plan.spelling import spell, words
from llmbuild.printable import several
from llmbuild.programs.environment import VARIABLE

Change: TypeAlias = tuple[str, Json, Json]
"""A path ("scheme/group_size") with its old and new value; MISSING stands for "not there"."""

MISSING = "\0missing"
SOURCES_TOOL = "llmbuild sources"
FAMILY_TOOL = "llmbuild family"
PACKAGE_TOOL = "llmbuild package kind"
"""The sources of the family that a model is of, apart from those that all models share."""
_BYTES = "+sha256."
"""The text before the digest in the identity of a tool whose bytes count."""


@dataclass(frozen=True, slots=True)
class NeverBuilt:
    """There is no trace of this task."""


@dataclass(frozen=True, slots=True)
class ParameterChanged:
    """A leaf of the task's parameters; `name` is its path, old or new None when it was or became absent."""

    name: str
    old: Json
    new: Json

    def __post_init__(self) -> None:
        _freeze_values(self)


@dataclass(frozen=True, slots=True)
class InputChanged:
    """A file that the task reads (`field` of it, for a projected JSON file).

    `task` is the label of the task that makes it, or "source" for what comes from outside.
    """

    task: str
    file: str
    old: Json
    new: Json
    field: str = ""

    def __post_init__(self) -> None:
        _freeze_values(self)


@dataclass(frozen=True, slots=True)
class ToolChanged:
    """A tool in the key; `name` is "apache-tvm", "linker", or "llmbuild sources" with the `file` that changed."""

    name: str
    old: str | None
    new: str | None
    file: str = ""


@dataclass(frozen=True, slots=True)
class OutputMissing:
    """A file in the project's output directory is gone."""

    path: str


@dataclass(frozen=True, slots=True)
class OutputCorrupt:
    """A file in the project's output directory (or, with `cached`, in the store) has other bytes than were built."""

    path: str
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Evicted:
    """The task was built with this key, and its output is no longer in the store."""


@dataclass(frozen=True, slots=True)
class Forced:
    """The user forced it (--force)."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """The task cannot run here, and what it would be built with is unknown: what is missing, and how to install it."""

    what: str
    fix: str | None


@dataclass(frozen=True, slots=True)
class Cascade:
    """An upstream task has to run first; `root` is the label of the first cause."""

    root: str


def _freeze_values(reason: ParameterChanged | InputChanged) -> None:
    # A plan groups tasks by their reasons, so a list or a table in one must have a hash.
    object.__setattr__(reason, "old", freeze(reason.old))
    object.__setattr__(reason, "new", freeze(reason.new))


Reason: TypeAlias = (
    NeverBuilt
    | ParameterChanged
    | InputChanged
    | ToolChanged
    | OutputMissing
    | OutputCorrupt
    | Evicted
    | Forced
    | Blocked
    | Cascade
)

_KINDS: Mapping[str, type[Reason]] = {
    "never-built": NeverBuilt,
    "parameter-changed": ParameterChanged,
    "input-changed": InputChanged,
    "tool-changed": ToolChanged,
    "output-missing": OutputMissing,
    "output-corrupt": OutputCorrupt,
    "evicted": Evicted,
    "forced": Forced,
    "blocked": Blocked,
    "cascade": Cascade,
}
_NAMES = {type_: name for name, type_ in _KINDS.items()}


def reason_to_json(reason: Reason) -> dict[str, Json]:
    """`{"reason": "parameter-changed", "name": …, "old": …, "new": …, "text": …}`."""
    return {"reason": _NAMES[type(reason)], **asdict(reason), "text": sentence(reason)}


def reason_from_json(value: Mapping[str, Json]) -> Reason:
    """The inverse of `reason_to_json`; raises KeyError for an unknown kind."""
    fields = {key: item for key, item in value.items() if key not in ("reason", "text")}
    return _KINDS[str(value["reason"])](**fields)  # type: ignore[arg-type]


def sentence(reason: Reason) -> str:  # noqa: PLR0911 - one line a reason is the point of this function
    """The reason in the field's words, without a final dot."""
    match reason:
        case NeverBuilt():
            return "never built"
        case ParameterChanged(name, old, new):
            libraries = libraries_changed(name, *(None if value == MISSING else value for value in (old, new)))
            return libraries or _change(words(name), old, new)
        case InputChanged(task, file, old, new, field):
            return _input_sentence(task, file, old, new, field)
        case ToolChanged(name, old, new, file):
            return f"{_sources(file)}: {_file_change(file, old, new)}" if file else _tool_sentence(name, old, new)
        case OutputMissing(path):
            return f"{path} is missing"
        case OutputCorrupt(path, cached):
            return f"{path} was damaged in the cache" if cached else f"{path} was changed after it was built"
        case Evicted():
            return "its output is no longer in the cache"
        case Forced():
            return "forced"
        case Blocked(what, fix):
            return f"{what} ({fix})" if fix else what
        case Cascade(root):
            return f"after {root}"


def _change(name: str, old: Json, new: Json) -> str:
    if old == MISSING:
        return f"{name} set to {spell(new)}"
    if new == MISSING:
        return f"{name} {spell(old)} -> default"
    return f"{name} {spell(old)} -> {spell(new)}"


def _sources(file: str) -> str:
    """`llmbuild compiler sources` for compiler/pipeline.py."""
    part, slash, _ = file.partition("/")
    return f"llmbuild {part} sources" if slash and part != "sources" else SOURCES_TOOL


def sentences(reasons: Iterable[Reason], files: int | None = None) -> list[str]:
    """The sentences of all reasons, each once.

    Changed source files of one part of llmbuild share a sentence, which names the first `files` of them.
    """
    said: dict[str, list[str]] = {}
    for reason in reasons:
        text = sentence(reason)
        if isinstance(reason, ToolChanged) and reason.file:
            lead, _, rest = text.partition(": ")
            said.setdefault(f"{lead}: ", []).append(rest)
        else:
            said[text] = []
    return [lead + _some(names, files) for lead, names in said.items()]


def _some(names: list[str], count: int | None) -> str:
    return ", ".join(names) if count is None else several(names, count)


def _file_change(file: str, old: Json, new: Json) -> str:
    if old is None or old == MISSING:
        return f"{file} is new"
    if new is None or new == MISSING:
        return f"{file} is gone"
    return file


def _input_sentence(task: str, file: str, old: Json, new: Json, field: str) -> str:
    if field:
        return f"{_change(words(field), old, new)} (from {task})"
    verb = "added" if old in (None, MISSING) else "removed" if new in (None, MISSING) else "changed"
    if task == "source" and verb == "changed":
        # The project no longer has the old file, but its digest can be looked up.
        verb = f"changed {_head(str(old))} -> {_head(str(new))}"
    return f"{file or 'the output'} {verb} (from {task})"


def _tool_sentence(name: str, old: str | None, new: str | None) -> str:
    """Versions where they differ; where only the bytes do, the heads of the digests."""
    if old is None:
        return f"{name} is new: {spoken(new or '')}"
    if new is None:
        return f"{name} {spoken(old)} is no longer used"
    if name.startswith(VARIABLE):
        return f"the {name} " + (
            f"{spoken(old)} -> {spoken(new)}" if spoken(old) != spoken(new) else "has another value"
        )
    if spoken(old) != spoken(new):
        return f"{name} {spoken(old)} -> {spoken(new)}"
    if _BYTES not in old:
        return f"{name} {spoken(new)}: the same version, its bytes count now"
    return f"{name} {spoken(new)}: the same version, other bytes ({_head(old)} -> {_head(new)})"


def spoken(identity: str) -> str:
    """The identity of a tool without its digest; for one that is only a digest, the beginning."""
    head = identity.partition(_BYTES)[0]
    return _head(head) if len(head) == 64 else head


def _head(identity: str) -> str:
    return identity.rpartition(_BYTES)[2][:12]


class Contents(Protocol):
    """What the comparison may look up to name what changed; each method returns None for what is no longer recorded."""

    def tree(self, digest: Digest) -> Tree | None: ...

    def json_value(self, digest: Digest) -> Json: ...

    def source_files(self, digest: Digest) -> Mapping[str, Digest] | None:
        """The llmbuild source files behind the digest in a key's "llmbuild sources"."""
        ...


def compare(
    old: Mapping[str, Json], new: Action, upstream: Mapping[str, str], contents: Contents
) -> tuple[Reason, ...]:
    """What differs between an earlier key (`Action.key()`) and a new action, most telling first; empty when nothing does.

    `upstream` maps the names of the inputs to the labels of the tasks that make them.
    """
    key = new.key()
    return (
        *parameter_reasons(_mapping(old.get("params")), new.params),
        *_input_reasons(_mapping(old.get("inputs")), new.inputs, upstream, contents),
        *tool_reasons(_mapping(old.get("tools")), new.tools, contents),
        *(
            ParameterChanged(f"task {name}", old.get(name), key[name])
            for name in ("kind", "version")
            if old.get(name) != key[name]
        ),
    )


def parameter_reasons(old: Mapping[str, Json], new: Mapping[str, Json]) -> tuple[Reason, ...]:
    """One reason for each leaf that differs.  The digests of source files are reported as changed inputs."""
    reasons: list[Reason] = []
    for path, before, after in changes(old, new):
        if path.startswith("files/"):
            reasons.append(InputChanged("source", path.removeprefix("files/"), before, after))
        else:
            reasons.append(ParameterChanged(path, before, after))
    return tuple(reasons)


def tool_reasons(old: Mapping[str, Json], new: Mapping[str, str], contents: Contents) -> tuple[Reason, ...]:
    """One reason for each tool that differs; for llmbuild's own sources one for each changed file, where both sets are known."""
    reasons: list[Reason] = []
    for name, before, after in changes(old, new):
        if name in (SOURCES_TOOL, FAMILY_TOOL, PACKAGE_TOOL) and MISSING not in (before, after):
            old_files, new_files = _source_files(before, contents), _source_files(after, contents)
            files = changes(old_files or {}, new_files or {})
            if old_files is not None and new_files is not None and files:
                reasons += [ToolChanged(name, _text(a), _text(b), file) for file, a, b in files]
                continue
        reasons.append(ToolChanged(name, _text(before), _text(after)))
    return tuple(reasons)


def _source_files(listed: Json, contents: Contents) -> Mapping[str, Digest] | None:
    digest = known_digest(listed)
    return None if digest is None else contents.source_files(digest)


def _text(value: Json) -> str | None:
    return None if value == MISSING else str(value)


def _input_reasons(
    old: Mapping[str, Json], new: Mapping[str, Input], upstream: Mapping[str, str], contents: Contents
) -> tuple[Reason, ...]:
    reasons: list[Reason] = []
    for name in sorted(old.keys() | new.keys()):
        task = upstream.get(name, name)
        before = known_digest(_mapping(old.get(name)).get("digest"))
        current = new.get(name)
        after = None if current is None else current.tree if isinstance(current, TreeInput) else current.blob
        if before != after:
            named = _named_changes(task, before, current, contents) if before and current else ()
            reasons += named or (InputChanged(task, "", before, after),)
    return tuple(reasons)


def _named_changes(task: str, before: Digest, current: Input, contents: Contents) -> tuple[Reason, ...]:
    if isinstance(current, JsonInput):
        old_value, new_value = contents.json_value(before), contents.json_value(current.blob)
        if not isinstance(old_value, Mapping) or not isinstance(new_value, Mapping):
            return ()
        return tuple(InputChanged(task, "", a, b, field=path) for path, a, b in changes(old_value, new_value))
    old_tree, new_tree = contents.tree(before), contents.tree(current.tree)
    if old_tree is None or new_tree is None:
        return ()
    old_files = {file.path: file.digest for file in old_tree.files}
    new_files = {file.path: file.digest for file in new_tree.files}
    return tuple(
        InputChanged(task, path, old_files.get(path), new_files.get(path))
        for path in sorted(old_files.keys() | new_files.keys())
        if old_files.get(path) != new_files.get(path)
    )


def changes(old: Mapping[str, Json], new: Mapping[str, Json], prefix: str = "") -> list[Change]:
    """The leaves that differ between two JSON objects, as (path, old, new), sorted by path; lists count as leaves."""
    found: list[Change] = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, MISSING), new.get(name, MISSING)
        if same(before, after):
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += changes(before, after, f"{prefix}{name}/")
        else:
            found.append((f"{prefix}{name}", before, after))
    return found


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}
