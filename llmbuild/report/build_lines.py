"""The lines about a build's end, its failures and its checks, as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from llmbuild.engine import events
from llmbuild.engine.executor import TaskFailure
from llmbuild.printable import printable
from llmbuild.report.errors import MOST_LINES, render_error, without_repeats
from llmbuild.report.events import Checked
from llmbuild.report.style import Style
from llmbuild.report.units import files, seconds, tasks

_TAIL_LINES = 12
_AROUND_TAIL = 3
"""The lines of a failure before and after the end of its log."""


def summary_text(summary: events.Summary, written: int, restored: int, style: Style) -> str:
    """`built 5 tasks in 12.3 s (0 cached)`, and the lines in its place when nothing ran or something failed: without tasks
    that ran, how many files were `written` where none or others were, and `restored` after somebody's change."""
    took = seconds(summary.wall_s)
    if summary.failed or summary.interrupted:
        parts = [f"{summary.failed} failed"] if summary.failed else []
        parts += [f"{summary.ran} built", f"{summary.cached} cached"]
        parts += [f"{summary.skipped} not run"] if summary.skipped else []
        word = style.paint("interrupted" if summary.interrupted else "failed", "red")
        return f"{word} after {took}: {', '.join(parts)}"
    if summary.ran:
        return f"{style.paint('built', 'green')} {tasks(summary.ran)} in {took} ({summary.cached} cached)"
    parts = [f"{tasks(summary.cached)} cached"]
    parts += [f"{files(count)} {done}" for count, done in ((written, "written"), (restored, "put back")) if count]
    return f"{style.paint('up to date', 'green')}: {', '.join(parts)} ({took})"


def removed_texts(removed: Sequence[str]) -> list[str]:
    """What was removed because nothing makes it any more: a line for each directory."""
    places: dict[str, list[str]] = {}
    for path in removed:
        places.setdefault(path.rpartition("/")[0], []).append(path)
    return [
        f"{found[0]}: nothing makes it any more"
        if len(found) == 1
        else f"{files(len(found))} of {place}: nothing makes them any more"
        for place, found in places.items()
    ]


def message_of(failure: TaskFailure) -> TaskFailure:
    """What failures of several tasks share when they have one cause."""
    return TaskFailure(failure.what, failure.where, failure.why, failure.fix)


def log_lines(log: str, style: Style) -> list[str]:
    """The lines of a task's log, told apart from llmbuild's own."""
    return [style.paint(f"  | {line}".rstrip(), "dim") for line in printable(log).rstrip().splitlines()]


def failure_text(event: events.Failed, style: Style, said: set[str] | None = None, whole: str = "") -> str:
    """A failed task: the error, the end of its log, where the whole log is, and how to run the task alone; without the long
    reasons that were `said` before, and with the `whole` log where that is given."""
    failure: TaskFailure = event.failure
    error = without_repeats(failure.to_error(), set() if said is None else said)
    where = f"{error.where}: " if error.where else ""
    error.what, error.where = f"{event.label} failed: {where}{error.what}", None
    lines = [render_error(error, style)]
    place = MOST_LINES - lines[0].count("\n") - 1 - _AROUND_TAIL
    tail = log_lines(failure.log_tail, style)[-max(1, min(_TAIL_LINES, place)) :]
    if whole:
        lines += ["  its log:", *log_lines(whole, style)]
    elif tail:
        lines += ["  the end of its log:", *tail]
    if failure.log:
        lines.append(f"  log: {failure.log}")
    if event.action:
        lines.append(f"  to run it alone: llmbuild exec {event.action[:16]}")
    return "\n".join(lines)


def checked_text(event: Checked, style: Style) -> str:
    """A task that ran again: that its bytes are the same, or which files differ."""
    if not event.differences:
        took = seconds(event.wall_s)
        return f"{style.paint('same  ', 'green')} {event.label}: {files(event.files)}, byte for byte ({took})"
    lines = [f"{style.paint('differs', 'red')} {event.label}: the same inputs gave other bytes"]
    lines += [f"  {difference}" for difference in event.differences]
    lines.append(f"  to run it again: llmbuild exec {event.action[:16]}")
    return "\n".join(lines)
