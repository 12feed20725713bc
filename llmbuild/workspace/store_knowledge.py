"""The planner's knowledge of the past, looked up in the store.  Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmbuild.canonical import Digest, Json, digest_bytes, parse_digest
from llmbuild.engine.action import Action
from llmbuild.engine.bind import Bound, bind
from llmbuild.engine.cas import MissingBlobError
from llmbuild.engine.install import Installation, inspect
from llmbuild.engine.lookup import Cached, lookup
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.engine.tree import Tree
from llmbuild.errors import StoreError
from llmbuild.jsontext import parse_json
from llmbuild.plan.graph import labels
from llmbuild.plan.observed import Observed
from llmbuild.plan.planner import Built, Lost, why
from llmbuild.plan.reasons import Evicted, OutputCorrupt, OutputMissing, Reason
from llmbuild.workspace.manifests import known_manifests
from llmbuild.workspace.place import MANIFEST


class StoreKnowledge:
    """Implements `llmbuild.plan.planner.Knowledge` for one project in one store."""

    def __init__(self, store: Store, root: Path, observed: Observed, project: str | None = None) -> None:
        self._store = store
        self._root = root
        self._observed = observed
        # Narrowed trees and projected values exist in the store only once their task ran; a plan keeps its own.
        self._made: dict[Digest, bytes] = {}
        self._project = project or str(root)
        self._history = store.history(self._project)
        self._latest: Mapping[str, Digest] | None = None

    def bind(self, task: Task, outputs: Mapping[str, Digest]) -> Action | None:
        try:
            trees = {label: self._store.cas.get_tree(digest) for label, digest in outputs.items()}
            bound = bind(task, trees, self._store.cas.get_bytes)
        except MissingBlobError:
            return None
        self._keep(bound)
        return bound.action

    def reasons(self, task: Task, bound: Bound) -> tuple[Reason, ...]:
        """Why a bound task runs; never empty."""
        self._keep(bound)
        return why(task, bound.action, self.recall(bound.action.digest), self)

    def _keep(self, bound: Bound) -> None:
        self._made.update((digest_bytes(blob), blob) for blob in bound.blobs)

    def recall(self, action: Digest) -> Built | Lost | None:
        found = lookup(self._store, action)
        if isinstance(found, Cached):
            lost = [file for file in found.away if not self._store.cas.places.stands(file.digest)]
            return Built(found.trace.output, Tree.of(lost))
        trace = self._store.traces.get(action)
        if trace is None:
            return None
        if trace.output in self._store.cas.corrupt:
            return Lost(OutputCorrupt("the list of its files", cached=True))
        tree = self.tree(trace.output)
        # A damaged blob that another task has made again since is not missing.
        lacking = () if tree is None else tree.files
        cas = self._store.cas
        damaged = [one.path for one in lacking if one.digest in cas.corrupt and not cas.has(one.digest)]
        return Lost(OutputCorrupt(damaged[0], cached=True) if damaged else Evicted())

    def previous(self, label: str) -> Mapping[str, Json] | None:
        action = self._history.last().get(label) or self._before().get(label) or self._indexed().get(label)
        if action is None:
            return None
        trace = self._store.traces.get(action)
        if trace is not None:
            return trace.key
        try:
            return self._store.get_action(action).action.key()
        except StoreError:
            return {}

    def _before(self) -> Mapping[str, Digest]:
        """The actions of a manifest other than buildfile.toml that a llmbuild with one history for a directory recorded: those
        of the labels that buildfile.toml does not have."""
        root = str(self._root)
        if self._project == root or self._history.last():
            return {}
        last = self._store.history(root).last()
        if not last or not (self._root / MANIFEST).is_file():
            return last
        usual = known_manifests(self._root, self._store.seal).get(MANIFEST)
        return {} if usual is None else {label: last[label] for label in last.keys() - labels(usual)}

    def _indexed(self) -> Mapping[str, Digest]:
        """The last actions by the traces, for labels that the history lacks: it may have been lost."""
        if self._latest is None:
            traced = self._store.traces.root.is_dir()
            self._latest = self._store.index.latest(self._project) if traced else {}
        return self._latest

    def installed(self, task: Task, output: Digest) -> tuple[Reason, ...]:
        if not task.installs:
            return ()
        tree = self._store.cas.get_tree(output)
        wrong = inspect(self._root, [Installation(task.label, tree, install) for install in task.installs])
        return tuple(OutputMissing(path) if how == "missing" else OutputCorrupt(path) for _, path, how in wrong)

    def tree(self, digest: Digest) -> Tree | None:
        data = self._made.get(digest)
        try:
            return self._store.cas.get_tree(digest) if data is None else Tree.from_bytes(data)
        except (StoreError, ValueError, TypeError):
            # It was evicted, or it is no tree: the task read a projected value before, or does so now.
            return None

    def json_value(self, digest: Digest) -> Json:
        try:
            value: Json = parse_json(self._made.get(digest) or self._store.cas.get_bytes(digest))
        except (StoreError, ValueError):
            return None
        return value

    def source_files(self, digest: Digest) -> Mapping[str, Digest] | None:
        """This llmbuild's own files, or those that an earlier build left in the store (`remember_sources`)."""
        if digest in self._observed.source_files:
            return self._observed.source_files[digest]
        value = self.json_value(digest)
        if not isinstance(value, Mapping):
            return None
        try:
            return {name: parse_digest(item) for name, item in value.items()}
        except ValueError:
            return None


def remember_sources(store: Store, observed: Observed) -> None:
    """Store the lists of llmbuild's source files, so that a later plan can name the file that changed."""
    from llmbuild.canonical import canonical_json

    for digest, files in observed.source_files.items():
        if not store.cas.blob_path(digest).exists():
            store.cas.put_bytes(canonical_json(files))
