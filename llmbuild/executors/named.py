"""Executors by name: those of llmbuild, and any module that can be imported here.

An executor is one module with a function `open_executor(store)` that returns an `llmbuild.engine.executor.Executor`.
Only the user names one, by `--executor`, LLMBUILD_EXECUTOR or the setting `executor`; no manifest does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llmbuild.engine.kind import no_progress
from llmbuild.engine.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmbuild.canonical import Digest
    from llmbuild.engine.executor import Executor, TaskFailure
    from llmbuild.engine.kind import Progress
    from llmbuild.engine.lookup import Cached
    from llmbuild.engine.store import Store

EXECUTORS = {"local": "llmbuild.executors.local", "inline": "llmbuild.executors.inline"}
"""llmbuild's own, by name."""

DEFAULT = "local"


class NamedExecutor:
    """The executor with a name, opened when the first task runs: a null build has no use for it."""

    def __init__(self, store: Store, name: str | None = None) -> None:
        """Without a name it is LLMBUILD_EXECUTOR's, the user's setting or the local one.

        Raises UsageError when there is none of that name.
        """
        self._store = store
        self._name = name or os.environ.get("LLMBUILD_EXECUTOR") or read_settings().executor or DEFAULT
        self._executor: Executor | None = None
        if self._name not in EXECUTORS:
            # Whether there is one of this name shows before anything is built.
            _opener(self._name)

    def run(self, action: Digest, progress: Progress) -> Cached | TaskFailure | None:
        return self._get().run(action, progress)

    def rerun(self, action: Digest, progress: Progress = no_progress) -> Digest | TaskFailure:
        return self._get().rerun(action, progress)

    def expect(self, kind: str, count: int) -> None:
        self._get().expect(kind, count)

    def terminate(self) -> None:
        self._get().terminate()

    def _get(self) -> Executor:
        if self._executor is None:
            self._executor = _opener(self._name)(self._store)
        return self._executor


def _opener(name: str) -> Callable[[Store], Executor]:
    """What opens the executor with a name."""
    from llmbuild.engine.plugin import opener

    return opener("executor", name, EXECUTORS, "open_executor")
