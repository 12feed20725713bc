"""Tools that this machine lacks: their entries in a key, and the errors of the tasks that need them.

The lock file pins tools by the names that they report; a key has their content too.  The content of a locked tool is looked up
in the keys of what it built: those of this project before those of others, and the latest ones first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from llmbuild.canonical import Digest
from llmbuild.engine.labels import split_label
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.errors import LlmbuildError, ToolchainError, raise_all
from llmbuild.manifest.lock import Lock
from llmbuild.plan.planner import Plan
from llmbuild.plan.reasons import spoken
from llmbuild.workspace.trust import UntrustedError


class LockedTools:
    """The tools of a lock file, with the content that a store recorded; `project` is the store's name for the project."""

    def __init__(self, lock: Lock, store: Store, project: str) -> None:
        self._lock = lock
        self._store = store
        self._project = project

    def name(self, tool: str, platform: str) -> str | None:
        """The lock file's entry for a tool of a platform."""
        return self._lock.toolchain.get(f"{tool} {platform}")

    def tools(self, kind: str, tool: str, platform: str) -> Mapping[str, str]:
        """The tools of the key of a task of this kind that the locked tool ran; empty where the store has none."""
        locked = self.name(tool, platform)
        if locked is None:
            return {}
        for action in dict.fromkeys(self._candidates(kind, platform)):
            trace = self._store.traces.get(action)
            tools = None if trace is None else trace.key.get("tools")
            if isinstance(tools, Mapping) and spoken(str(tools.get(tool, ""))) == locked:
                return {str(name): str(identity) for name, identity in tools.items()}
        return {}

    def _candidates(self, kind: str, platform: str) -> Iterator[Digest]:
        """The actions of a kind in the store, first those whose tool most likely is the locked one."""

        def of_platform(label: str) -> bool:
            of, names = split_label(label)
            return of == kind and names[-1:] == (platform,)

        last = self._store.history(self._project).last()
        yield from (action for label, action in last.items() if of_platform(label))
        if not self._store.traces.root.is_dir():
            return
        runs = self._store.index.recent(kind)[::-1]
        yield from (run.action for run in runs if of_platform(run.label) and run.project == self._project)
        yield from (run.action for run in runs if of_platform(run.label))
        yield from (run.action for run in runs)


def missing_for(tasks: Iterable[Task]) -> list[LlmbuildError]:
    """What these tasks lack, each reported once with the platforms that need it."""
    found: dict[str, tuple[LlmbuildError, dict[str, None]]] = {}
    for task in tasks:
        for error in task.missing:
            found.setdefault(str(error), (error, {}))[1].setdefault(task.platform)
    return [_for_platforms(error, [name for name in names if name]) for error, names in found.values()]


def require_tools(plan: Plan, *, blocked_only: bool = False) -> None:
    """Raise a ToolchainError, or a MultiError, for what tasks lack that must or may run and cannot run here; with `blocked_only`
    just for those in the state `blocked`."""
    stopped = [one.task for one in plan.verdicts if one.impossible and (one.state == "blocked" or not blocked_only)]
    raise_all(missing_for(stopped))


def require_accepted(plan: Plan) -> None:
    """Raise InputError, or a MultiError, for the checkpoints that tasks must or may read and would refuse.

    What is not trusted is said in the plan, which goes on.
    """
    refused = [
        one.task for one in plan.verdicts if one.impossible and one.task.lack is not None and one.task.lack.refused
    ]
    raise_all([error for error in missing_for(refused) if not isinstance(error, UntrustedError)])


def _for_platforms(error: LlmbuildError, names: list[str]) -> LlmbuildError:
    """The same error with the platforms that it blocks."""
    if error.where is not None or not names:
        return error
    where = f"platform{'s' if len(names) > 1 else ''} {', '.join(names)}"
    named = ToolchainError(error.what, where=where, why=error.why, fix=error.fix)
    named.exit_code = error.exit_code
    return named
