"""Pinning in the lock file what a build fetched."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.canonical import Json
from llmbuild.manifest.lock import LOCK_FILE, Lock, read_lock, write_lock
from llmbuild.manifest.project import Project
from llmbuild.plan.observed import Observed
from llmbuild.workspace.locking import fetches, toolchain_of, tree_files

if TYPE_CHECKING:
    from llmbuild.engine.tree import Tree


def complete(
    project: Project,
    observed: Observed,
    lock: Lock,
    trees: Mapping[str, Tree | None],
    unlisted: Collection[str] = (),
) -> None:
    """Pin what was fetched (the tree of each fetch task by label) and record tools that the lock does not have yet, but those of
    `unlisted` platforms.

    The file is written only when that adds something, and keeps what another process changed in it meanwhile.
    """
    pins: dict[str, Mapping[str, Json]] = {}
    for fetch in fetches(project):
        tree, observation = trees.get(fetch.label), fetch.observation(observed)
        if tree is not None and observation is not None:
            pin = fetch.kind.fetched_pin(fetch.source.spec, observation.params, fetch.pin(lock), tree_files(tree))
            if pin != lock.get(fetch.key):
                pins[fetch.key] = pin
    tools = {
        name: value
        for name, value in toolchain_of(project, observed).items()
        # A tool of a platform is a word and the platform's name.
        if name not in lock.toolchain and name.partition(" ")[2] not in unlisted
    }
    if not pins and not tools:
        return
    path = Path(project.root) / LOCK_FILE
    current = read_lock(path)
    for key, pin in pins.items():
        if current.get(key) == lock.get(key):
            current.put(key, pin)
    for name, value in tools.items():
        if name not in current.toolchain:
            current.record_tool(name, value)
    if current.changed:
        write_lock(path, current)
