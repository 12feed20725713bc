"""`llmbuild build --check`: run tasks again and compare their bytes with their traces."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING

from llmbuild.engine import events
from llmbuild.engine.compare import compare
from llmbuild.engine.executor import TaskFailure
from llmbuild.report.events import Checked

if TYPE_CHECKING:
    from llmbuild.engine.executor import Executor
    from llmbuild.engine.outcome import Outcome
    from llmbuild.engine.store import Store


def check(
    store: Store,
    executor: Executor,
    outcomes: Sequence[tuple[str, Outcome]],
    jobs: int,
    emit: Callable[[events.Event], None],
) -> Mapping[str, Checked | TaskFailure]:
    """Run the action of each built task again, beside its trace, and report what differs, or how it failed this time.

    The result is in the order of the outcomes.  A resumable task starts from nothing, and no trace is written.
    """
    found: dict[str, Checked | TaskFailure] = {}

    def rerun(label: str, outcome: Outcome) -> Checked | events.Failed:
        assert outcome.action is not None
        assert outcome.tree is not None
        started = time.monotonic()
        output = executor.rerun(outcome.action)
        if isinstance(output, TaskFailure):
            return events.Failed(time=time.time(), label=label, action=outcome.action, failure=output)
        differences = compare(store.cas, outcome.tree, store.cas.get_tree(output))
        return Checked(
            time=time.time(),
            label=label,
            action=outcome.action,
            files=len(outcome.tree.files),
            wall_s=round(time.monotonic() - started, 6),
            differences=tuple(differences),
        )

    pool = ThreadPoolExecutor(jobs)
    try:
        # In the order of their ends: who waits for a slow task sees the results of the others meanwhile.
        futures = {pool.submit(rerun, label, outcome): label for label, outcome in outcomes}
        for future in as_completed(futures):
            event = future.result()
            emit(event)
            found[event.label] = event if isinstance(event, Checked) else event.failure
    except BaseException:
        executor.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return {label: found[label] for label, _ in outcomes}
