"""The estimate for a plan, from the runs that the store has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmbuild.errors import StoreError

if TYPE_CHECKING:
    from llmbuild.cli.plan import Session
    from llmbuild.engine.index import RunSummary
    from llmbuild.plan.estimates import PlanEstimate
    from llmbuild.plan.planner import Plan


def estimate_plan(session: Session, plan: Plan) -> PlanEstimate | None:
    """What the plan will take; None when nothing has to run.  The index of the store is read only where something has."""
    if not any(verdict.state in ("run", "maybe") for verdict in plan.verdicts):
        return None
    from llmbuild.cli.build import default_jobs
    from llmbuild.engine.predict import Predictor
    from llmbuild.plan.estimates import estimate
    from llmbuild.tasks.registry import load_kind

    store = session.store

    def runs(kind: str) -> Sequence[RunSummary]:
        # A plan makes nothing in a store that has nothing yet, and an estimate is not worth a failure.
        try:
            return store.index.recent(kind) if store.traces.root.is_dir() else ()
        except StoreError:
            return ()

    return estimate(
        plan,
        Predictor(runs, load_kind, session.whole.root),
        session.knowledge.tree,
        lambda digest: len(digest) == 64 and store.cas.blob_path(digest).exists(),
        default_jobs(),
    )
