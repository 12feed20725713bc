"""What commands do with the lock file: read it fast, verify the world against it, complete it after a build.

A null build reads the lock file too.  TOML is slow to parse, so the parsed lock is cached in `.llmbuild/`, under the digest
of the file's bytes.
"""

from __future__ import annotations

import contextlib
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.canonical import Digest, Json, digest_bytes, digest_json
from llmbuild.engine import files
from llmbuild.engine.labels import make_label
from llmbuild.errors import FetchError, LlmbuildError, StoreError, UsageError, raise_all
from llmbuild.jsontext import parse_json
from llmbuild.manifest.lock import LOCK_FILE, Lock, parse_lock, read_lock
from llmbuild.manifest.measuring import CALIBRATING, MEASURING
from llmbuild.manifest.project import Project
from llmbuild.plan.observed import DEVICE_TOOL, Observed
from llmbuild.plan.reasons import SOURCES_TOOL, InputChanged, spoken
from llmbuild.sources import lock_key
from llmbuild.sources.kind import Source, SourceKind
from llmbuild.sources.kinds import source_kind
from llmbuild.sources.pins import first_difference, promise_broken, promised_files
from llmbuild.workspace.place import STATE_DIR

if TYPE_CHECKING:
    from llmbuild.engine.store import Store
    from llmbuild.engine.task import Task
    from llmbuild.engine.tree import Tree
    from llmbuild.sources.kind import Observation
    from llmbuild.workspace.tool_identities import Toolchain

_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Fetch:
    """A source that the project fetches: the task's label, the model, and the source's key in the lock; `package` names the
    package that it is for, in the place of a model."""

    label: str
    model: str
    source: Source
    key: str
    adapter: bool = False
    package: str = ""

    @property
    def kind(self) -> SourceKind:
        """The kind of its source."""
        return source_kind(self.source.kind)

    def observation(self, observed: Observed) -> Observation | None:
        """Its observation, None where there is none."""
        if self.package:
            return observed.of_packages.get(self.label)
        return (observed.adapters if self.adapter else observed.sources).get(self.model)

    def pin(self, lock: Lock) -> Mapping[str, Any] | None:
        """Its pin, None where the lock has none that still applies."""
        pin = lock.get(self.key)
        return pin if pin is not None and self.kind.applies(self.source.spec, pin) else None


def fetches(project: Project) -> Iterator[Fetch]:
    """The sources of the models in the project's matrix, and those of packages; presets have none."""
    for name in dict.fromkeys(cell.model for cell in project.matrix):
        model = project.models[name]
        if model.source is not None:
            key = lock_key(model.source, model.source_format)
            yield Fetch(make_label("fetch", name), name, model.source, key)
        if model.adapter is not None:
            yield Fetch(
                make_label("fetch", name, "adapter"), name, model.adapter, lock_key(model.adapter), adapter=True
            )
    for package in project.packages.values():
        for name, source in package.sources.items():
            yield Fetch(make_label("fetch", package.name, name), "", source, lock_key(source), package=package.name)


def load_lock(root: Path, toolchain: Toolchain) -> Lock:
    """The project's lock, or an empty one.  Raises UsageError when the file is not a lock."""
    path = root / LOCK_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Lock()
    except OSError:
        return read_lock(path)
    memo = root / STATE_DIR / "lock-file.json"
    code = digest_json(toolchain.source_files(["llmbuild.manifest.lock"]))
    key = digest_json({"format": _FORMAT, "file": digest_bytes(data), "code": code})
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = memo.read_bytes()
        value = parse_json(kept)
        # A repository may bring such a file along, with other digests than those of the lock that people have read.
        if value["key"] == key and toolchain.seal is not None and toolchain.seal.holds(kept):
            lock = Lock.from_json(value["sources"], value["toolchain"])
            lock.changed = value["changed"] is True
            return lock
    try:
        lock = parse_lock(path, data.decode())
    except UnicodeDecodeError:
        return read_lock(path)
    sources: dict[str, Json] = dict(lock.sources)
    tools: dict[str, Json] = dict(lock.toolchain)
    memo_of: dict[str, Json] = {"key": key, "sources": sources, "toolchain": tools, "changed": lock.changed}
    if toolchain.seal is not None:
        with contextlib.suppress(StoreError, OSError):
            sealed = toolchain.seal.put(memo_of)
            memo.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomic(memo, sealed)
    return lock


TARGET = "target"
"""The word before a platform's name in the toolchain section, where the machine that builds decides what its target is."""


def toolchain_of(project: Project, observed: Observed) -> dict[str, str]:
    """The toolchain section as it would be written now."""
    from llmbuild.version import __version__

    python = ".".join(map(str, sys.version_info[:3]))
    # The lock names versions, which colleagues with other builds of them share; keys also hash the bytes.
    every = {name: value for tools in observed.tools.values() for name, value in tools.items() if name != SOURCES_TOOL}
    tools = {name: value for name, value in every.items() if " " not in name}
    # What measures is no result, and measured only where somebody asks.
    own = {name: identity for name, identity in observed.linkers.items() if name not in (MEASURING, CALIBRATING)}
    linkers = {f"linker {platform}": spoken(identity) for platform, identity in own.items()}
    devices = {f"{DEVICE_TOOL} {platform}": spoken(identity) for platform, identity in observed.devices.items()}
    built = {cell.platform: project.platforms[cell.platform] for cell in project.matrix}
    by_pattern = {cell.platform for cell in project.matrix if cell.by_pattern}
    targets = {
        f"{TARGET} {name}": platform.target
        for name, platform in built.items()
        if platform.by_machine or (name in by_pattern and name not in observed.lacks)
    }
    return {"python": python, "llmbuild": __version__, **tools, **linkers, **devices, **targets}


def required_lock(project: Project, observed: Observed, lock: Lock) -> Lock:
    """The lock that these models and platforms require, as far as it is known without fetching anything."""
    required = Lock()
    for fetch in fetches(project):
        observation = fetch.observation(observed)
        params = {} if observation is None else observation.params
        pin = fetch.kind.required_pin(fetch.source.spec, params, lock.get(fetch.key))
        if observation is not None and not fetch.kind.remote:
            pin = _with_sizes(pin, Path(str(observation.hints["path"])))
        required.sources[fetch.key] = pin
    required.toolchain = toolchain_of(project, observed)
    return required


def _with_sizes(pin: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """A local source's pin with the sizes of its files, which planning does not look up."""
    sized = {}
    for name, entry in pin["files"].items():
        file = path / name if path.is_dir() else path
        sized[name] = entry
        with contextlib.suppress(OSError):
            status = file.stat()
            # A directory or a device in the place of a file that is gone has no size to pin.
            if stat.S_ISREG(status.st_mode):
                sized[name] = {**entry, "size": status.st_size}
    return {"files": sized}


def models_by_key(project: Project) -> dict[str, list[str]]:
    """The models, or packages, that use each source."""
    users: dict[str, list[str]] = {}
    for fetch in fetches(project):
        users.setdefault(fetch.key, []).append(fetch.model or fetch.package)
    return users


def require_locked(project: Project, observed: Observed, lock: Lock) -> None:
    """Raise UsageError with the differences when the lock does not match exactly what this build needs."""
    from llmbuild.manifest.lockdiff import differences
    from llmbuild.report.lock_text import difference_line

    found = differences(lock, required_lock(project, observed, lock), partial=True)
    if not found:
        return
    exists = (Path(project.root) / LOCK_FILE).exists()
    users = models_by_key(project)
    raise UsageError(
        "the lock file is not up to date, and --locked forbids to change it"
        if exists
        else "there is no lock file, and --locked forbids to write it",
        where=LOCK_FILE,
        why="\n".join(difference_line(difference, users) for difference in found),
        fix=f"run `llmbuild lock` and commit {LOCK_FILE}",
    )


def tree_files(tree: Tree) -> dict[str, tuple[Digest, int]]:
    """Name to digest and size."""
    return {entry.path: (entry.digest, entry.size) for entry in tree.files}


@dataclass(frozen=True, slots=True)
class RemoteFetch:
    """A remote fetch task and what the cache has for it: `broken` reports how its result differs from its pin."""

    fetch: Fetch
    action: Digest
    source: Mapping[str, Any]
    cached: bool
    broken: str | None
    held: bool
    """Whether all its bytes are in the store, so that it can run without a network."""
    changed: InputChanged | None = None
    """Where `broken`: the first file of the result that does not match its pin, with both digests."""


def remote_fetches(project: Project, lock: Lock, store: Store, tasks: Sequence[Task]) -> list[RemoteFetch]:
    """The selected fetch tasks whose bytes come from elsewhere."""
    from llmbuild.engine.bind import bind
    from llmbuild.engine.lookup import Cached, lookup

    by_label = {task.label: task for task in tasks}
    found = []
    for fetch in fetches(project):
        task = by_label.get(fetch.label)
        if task is None or not fetch.kind.remote:
            continue
        pin = fetch.pin(lock)
        source: Any = task.params["source"]
        action = bind(task, {}, store.cas.get_bytes).action.digest
        result = lookup(store, action)
        # A file that was left where its owner has it was not fetched from this source.
        cached = isinstance(result, Cached) and not result.away
        files_there = tree_files(result.tree) if isinstance(result, Cached) else {}
        broken = promise_broken(pin, files_there) if cached else None
        difference = first_difference(pin, files_there) if broken else None
        held = False
        if not cached or broken:
            wanted = promised_files(pin) or fetch.kind.single_file(source)
            held = bool(wanted) and all(store.cas.has(digest) for digest in (wanted or {}).values())
        changed = InputChanged("source", *difference) if difference else None
        found.append(RemoteFetch(fetch, action, source, cached, broken, held, changed))
    return found


def require_offline(remotes: Sequence[RemoteFetch]) -> None:
    """Raise FetchError (or a MultiError) that names all that a build would have to download."""
    from llmbuild.sources.remote import broken_promise

    errors: list[LlmbuildError] = []
    for remote in remotes:
        if remote.held or (remote.cached and not remote.broken):
            continue
        where = f"{remote.fetch.label}: {remote.fetch.key}"
        if remote.broken:
            errors.append(broken_promise(where, f"in the cache: {remote.broken}; --offline forbids to fetch it again"))
            continue
        errors.append(
            FetchError(
                "has to be downloaded, and --offline forbids it",
                where=where,
                why="its files are not in the cache",
                fix=f"run `llmbuild build '{remote.fetch.label}'` once with a network, or import a cache that has it",
            )
        )
    raise_all(errors)
