"""`llmbuild build --check`: run tasks again and compare their bytes with what their traces say."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING

from llmbuild.engine import events
from llmbuild.engine.check import compare
from llmbuild.engine.executor import TaskFailure
from llmbuild.errors import ExitCode
from llmbuild.report.events import Checked

if TYPE_CHECKING:
    from llmbuild.engine.outcome import Outcome
    from llmbuild.engine.store import Store


def check(
    store: Store, outcomes: Sequence[tuple[str, Outcome]], jobs: int, emit: Callable[[events.Event], None]
) -> ExitCode:
    """Run the action of each built task again, beside its trace, and report what differs.

    Returns VERIFY when any byte differs, else the exit code of the first task that failed this time, else OK.  Nothing
    is taken from a resumable task's earlier run, and no trace is written.
    """
    from llmbuild.executors.local import LocalExecutor

    executor = LocalExecutor(store)
    codes: dict[str, ExitCode] = {}

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
        # In the order of their ends: who waits for a slow task sees meanwhile what the others gave.
        futures = {pool.submit(rerun, label, outcome): label for label, outcome in outcomes}
        for future in as_completed(futures):
            event = future.result()
            emit(event)
            if isinstance(event, events.Failed):
                codes[event.label] = event.failure.to_error().exit_code
            else:
                codes[event.label] = ExitCode.VERIFY if event.differences else ExitCode.OK
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        executor.terminate()
    if ExitCode.VERIFY in codes.values():
        return ExitCode.VERIFY
    return next((codes[label] for label, _ in outcomes if codes[label]), ExitCode.OK)
