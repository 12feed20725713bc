"""The provenance statements of results, which a build installs beside them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from llmbuild.engine.install import Installation
from llmbuild.engine.outcome import BuildResult
from llmbuild.engine.store import Store
from llmbuild.engine.task import Install, Task
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.manifest.project import Project
from llmbuild.plan.graph import results
from llmbuild.report.provenance import TaskResult, owner_of, statements


def owners(project: Project) -> frozenset[str]:
    """The labels under which the statements of a whole project are installed."""
    packages = {package.output for package in project.packages.values()}
    return frozenset(
        owner_of(path) for path in {*packages, *(one for cell in project.matrix for one in results(project, cell))}
    )


def statement_installations(
    store: Store, project: Project, tasks: Sequence[Task], result: BuildResult, installed: Collection[str]
) -> list[Installation]:
    """The statements of all that a build made or found and installed (by its path in the project), stored and ready to be
    installed."""
    done = {
        label: TaskResult(outcome.action, outcome.tree)
        for label, outcome in result.outcomes.items()
        if outcome.action is not None and outcome.tree is not None
    }
    made = []
    for one in statements(project.output, tasks, done):
        if one.artifact in installed:
            entry = FileEntry("statement", store.cas.put_bytes(one.data), len(one.data))
            made.append(Installation(one.owner, Tree((entry,)), Install("statement", one.path)))
    return made
