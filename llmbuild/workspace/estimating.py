"""The estimate for a plan, from the runs that the store recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmbuild.canonical import Digest
    from llmbuild.engine.index import RunSummary
    from llmbuild.engine.store import Store
    from llmbuild.engine.tree import Tree
    from llmbuild.plan.estimates import PlanEstimate
    from llmbuild.plan.planner import Plan


def estimate_plan(
    plan: Plan,
    store: Store,
    project: str,
    tree: Callable[[Digest], Tree | None],
    *,
    jobs: int | None = None,
    memory: int | None = None,
) -> PlanEstimate | None:
    """What the plan will take in the project of this root directory; None when nothing has to run.

    `tree` is as `plan.estimates.estimate` requires it; `jobs` and `memory` are those of the build, None for a build's
    defaults.  The index of the store is read only where something has to run.  Raises UsageError when
    $LLMBUILD_MEMORY is no size.
    """
    if not any(verdict.state in ("run", "maybe") for verdict in plan.verdicts):
        return None
    from llmbuild.engine.memory import budget
    from llmbuild.engine.predict import Predictor
    from llmbuild.engine.registry import load_kind
    from llmbuild.engine.settings import default_jobs
    from llmbuild.plan.estimates import estimate
    from llmbuild.sources import size

    def runs(kind: str) -> Sequence[RunSummary]:
        # A plan creates no files in an empty store.
        return store.index.recent(kind) if store.traces.root.is_dir() else ()

    return estimate(
        plan,
        Predictor(runs, load_kind, project),
        tree,
        lambda digest: len(digest) == 64 and store.cas.blob_path(digest).exists(),
        lambda task: size(task.params, task.hints),
        jobs or default_jobs(),
        budget() if memory is None else memory,
    )
