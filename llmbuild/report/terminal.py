"""The build in the terminal, rendered from events alone.

Where the output is a terminal, each running task has a live line; elsewhere each start and end is a plain line.
Cached tasks print nothing: only their number is reported.
"""

from __future__ import annotations

import re
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any

from llmbuild.engine import events
from llmbuild.engine.executor import TaskFailure
from llmbuild.printable import printable
from llmbuild.report.errors import MOST_LINES, render_error, without_repeats
from llmbuild.report.events import Checked, Explained, Installed
from llmbuild.report.github import failure_commands
from llmbuild.report.heartbeat import Heartbeat
from llmbuild.report.plan_text import reasons_line
from llmbuild.report.style import Style, style_for
from llmbuild.report.units import amount, seconds, size, tasks
from llmbuild.workflow import in_workflow

if TYPE_CHECKING:
    from rich.progress import Progress

_TAIL_LINES = 12
_AROUND_TAIL = 3
"""The lines of a failure before and after the end of its log."""
_PAINTED = re.compile(r"(\x1b\[\d+m)(.*?)(\x1b\[0m)")
_BAR_FROM = 100
"""Terminals with fewer columns have no room for bars beside labels."""


class View:
    """Prints a build's events as lines.  `quiet` leaves only failures and the summary.

    Where lines cannot be redrawn, a line a minute reports what still runs.  `workflow` adds what GitHub Actions reads.
    """

    def __init__(self, stream: IO[str], style: Style, *, quiet: bool = False, workflow: bool = False) -> None:
        self.style = style
        self._workflow = workflow
        self._printing = threading.Lock()
        self._heartbeat = Heartbeat(lambda text: self.line(f"{self._word('still', 'cyan')} {text}"))
        self._stream = stream
        self._quiet = quiet
        self._reasons: dict[str, Explained] = {}
        self._failures: dict[TaskFailure, list[str]] = {}
        """The labels of failed tasks by what failed; the first one's message was printed."""
        self._said: set[str] = set()
        self._outputs: tuple[str, ...] = ()
        self._restored = 0
        self._noted: set[str] = set()

    def __call__(self, event: events.Event) -> None:
        match event:
            case Explained():
                self._reasons[event.label] = event
            case events.Started():
                self.started(event)
            case events.TaskProgress():
                self.progress(event)
            case events.Finished():
                self.ended(event.label)
                self.line(self._finished(event))
                self._notes(event)
            case events.CachedTask() if event.source in ("process", "remote"):
                self.ended(event.label)
                whence = "another process built it" if event.remote is None else f"from {event.remote}"
                self.line(f"{self._word('taken', 'green')} {event.label}: {whence}")
                self._notes(event)
            case events.WaitingForLock():
                who = f"process {event.owner_pid}" if event.owner_pid else "another process"
                self.line(f"{self._word('wait', 'cyan')} {event.label}: {who} is building it")
            case events.WaitingForMemory():
                free = size(max(0, event.budget - event.taken))
                self.line(
                    f"{self._word('wait', 'cyan')} {event.label}: it needs about {size(event.needs)} of memory, "
                    f"{free} of {size(event.budget)} are free"
                )
            case events.Failed():
                self._failed(event)
            case events.CorruptBlob():
                self.line(f"{self._word('drop', 'red')} {event.path}: it was damaged, what needs it is built again")
            case Checked():
                self.line(checked_text(event, self.style), always=bool(event.differences))
            case Installed():
                self._installed(event)
            case events.Summary():
                self.summary(event)

    def _notes(self, event: events.Finished | events.CachedTask) -> None:
        """Print a task's notes; what another task said already is not said again."""
        for text in event.notes:
            if text not in self._noted:
                self._noted.add(text)
                self.line(f"{self._word('note', 'yellow')} {event.label}: {text}")

    def _failed(self, event: events.Failed) -> None:
        self.ended(event.label)
        labels = self._failures.setdefault(message_of(event.failure), [])
        labels.append(event.label)
        if len(labels) > 1:
            return
        self.line(failure_text(event, self.style, self._said), always=True)
        if self._workflow:
            self._print("\n".join(failure_commands(event)))

    def _installed(self, event: Installed) -> None:
        self._outputs, self._restored = event.outputs, len(event.written) + len(event.restored)
        for text in removed_texts(event.removed):
            self.line(f"{self._word('remove', 'yellow')} {text}")
        for path in event.kept:
            self.line(f"{self._word('keep', 'yellow')} {path}: nothing makes it any more, but it was edited")

    def started(self, event: events.Started) -> None:
        """Print one line with the reason why a task starts."""
        reason = self.reason(event.label)
        self.line(f"{self._word('run', 'yellow')} {event.label}{': ' if reason else ''}{reason}")
        self.follow(event)

    def follow(self, event: events.Started) -> None:
        """Show that a task runs until it ends."""
        if not self._quiet:
            self._heartbeat.started(event.label, event.time)

    def progress(self, event: events.TaskProgress) -> None:
        """Show the progress of a task."""
        self._heartbeat.progress(event.label, amount(event.done, event.total, event.unit))

    def ended(self, label: str) -> None:
        """Stop showing a task that ended, failed or not."""
        self._heartbeat.ended(label)

    def close(self) -> None:
        """Remove the live part; further lines may follow."""
        self._heartbeat.stop()

    def reason(self, label: str) -> str:
        explained = self._reasons.get(label)
        return reasons_line(explained.reasons) if explained is not None else ""

    def line(self, text: str, *, always: bool = False) -> None:
        """Print lines above the live part.  On a terminal long ones are wrapped; in a file each stays one line."""
        if always or not self._quiet:
            self._print(wrapped(text, self.style.width) if self._stream.isatty() else text)

    def _print(self, text: str) -> None:
        with self._printing:
            print(text, file=self._stream, flush=True)

    def summary(self, summary: events.Summary) -> None:
        """Print the last lines: what was done, how long it took, where the outputs are."""
        self.close()
        for first, *others in self._failures.values():
            if others:
                self.line(f"{first} failed, and for the same reason {', '.join(others)}", always=True)
        self.line(summary_text(summary, self._restored, self.style), always=True)
        if summary.ran and not summary.failed and not summary.interrupted:
            for path in self._outputs:
                self.line(f"  {path}", always=True)

    def _finished(self, event: events.Finished) -> str:
        facts = [seconds(event.wall_s), size(event.output_size)]
        if event.peak_rss >= 256 << 20:
            facts.append(f"peak {size(event.peak_rss)} of memory")
        return f"{self._word('done', 'green')} {event.label} in {', '.join(facts)}"

    def _word(self, word: str, style: str) -> str:
        return self.style.paint(f"{word:<6}", style)


class LiveView(View):
    """A View whose running tasks have a live line each.  Imports rich when the first task starts."""

    def __init__(self, stream: IO[str], style: Style, *, quiet: bool = False, workflow: bool = False) -> None:
        super().__init__(stream, style, quiet=quiet, workflow=workflow)
        self._progress: Progress | None = None
        self._rows: dict[str, Any] = {}

    def follow(self, event: events.Started) -> None:
        self._rows[event.label] = self._live().add_task(event.label, total=None, amount="")

    def progress(self, event: events.TaskProgress) -> None:
        if event.label in self._rows:
            self._live().update(
                self._rows[event.label],
                completed=event.done,
                total=event.total or None,
                amount=amount(event.done, event.total, event.unit),
            )

    def ended(self, label: str) -> None:
        if label in self._rows:
            self._live().remove_task(self._rows.pop(label))

    def _print(self, text: str) -> None:
        if self._progress is None:
            super()._print(text)
        else:
            from rich.text import Text

            self._progress.console.print(Text.from_ansi(text), soft_wrap=True, highlight=False)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            self._rows.clear()

    def _live(self) -> Progress:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
            from rich.table import Column

            console = Console(file=self._stream, width=self.style.width, no_color=not self.style.color, highlight=False)
            self._progress = Progress(
                SpinnerColumn(),
                TimeElapsedColumn(Column(no_wrap=True, min_width=7)),
                *([BarColumn(bar_width=16)] if self.style.width >= _BAR_FROM else []),
                TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
                TextColumn("{task.fields[amount]}", markup=False, table_column=Column(no_wrap=True, min_width=10)),
                console=console,
                transient=True,
                refresh_per_second=8,
            )
            self._progress.start()
        return self._progress


def view_for(stream: IO[str] | None = None, *, quiet: bool = False) -> View:
    """The view that fits the stream (standard error when none is given)."""
    stream = stream or sys.stderr
    make: Callable[..., View] = LiveView if stream.isatty() and not quiet else View
    # On a terminal lines are wrapped, and nobody but a person reads them.
    workflow = in_workflow() and not stream.isatty()
    return make(stream, style_for(stream), quiet=quiet, workflow=workflow)


def wrapped(text: str, width: int) -> str:
    """The lines of a text, those that are too long broken between words; only a painted head keeps its colour."""
    lines: list[str] = []
    for line in text.split("\n"):
        plain = _PAINTED.sub(r"\2", line)
        if len(plain) <= width:
            lines.append(line)
            continue
        parts = textwrap.wrap(plain, width, subsequent_indent=" " * 7, break_long_words=False, break_on_hyphens=False)
        head = _PAINTED.match(line)
        if head is not None and parts[0].startswith(head[2]):
            parts[0] = head[0] + parts[0][len(head[2]) :]
        lines += parts
    return "\n".join(lines)


def summary_text(summary: events.Summary, restored: int, style: Style) -> str:
    """`built 5 tasks in 12.3 s (0 cached)`, and the lines in its place when nothing ran or something failed."""
    took = seconds(summary.wall_s)
    if summary.failed or summary.interrupted:
        parts = [f"{summary.failed} failed"] if summary.failed else []
        parts += [f"{summary.ran} built", f"{summary.cached} cached"]
        parts += [f"{summary.skipped} not run"] if summary.skipped else []
        word = style.paint("interrupted" if summary.interrupted else "failed", "red")
        return f"{word} after {took}: {', '.join(parts)}"
    if summary.ran:
        return f"{style.paint('built', 'green')} {tasks(summary.ran)} in {took} ({summary.cached} cached)"
    files = f", {restored} file{'' if restored == 1 else 's'} put back" if restored else ""
    return f"{style.paint('up to date', 'green')}: {tasks(summary.cached)} cached{files} ({took})"


def removed_texts(removed: Sequence[str]) -> list[str]:
    """What was removed because nothing makes it any more: a line for each directory."""
    places: dict[str, list[str]] = {}
    for path in removed:
        places.setdefault(path.rpartition("/")[0], []).append(path)
    return [
        f"{found[0]}: nothing makes it any more"
        if len(found) == 1
        else f"{len(found)} files of {place}: nothing makes them any more"
        for place, found in places.items()
    ]


def message_of(failure: TaskFailure) -> TaskFailure:
    """What failures of several tasks share when they have one cause."""
    return TaskFailure(failure.what, failure.where, failure.why, failure.fix)


def failure_text(event: events.Failed, style: Style, said: set[str] | None = None) -> str:
    """A failed task: the error, the end of its log, where the whole log is, and how to run the task alone; without the long
    reasons that were `said` before."""
    failure: TaskFailure = event.failure
    error = without_repeats(failure.to_error(), set() if said is None else said)
    where = f"{error.where}: " if error.where else ""
    error.what, error.where = f"{event.label} failed: {where}{error.what}", None
    lines = [render_error(error, style)]
    place = MOST_LINES - lines[0].count("\n") - 1 - _AROUND_TAIL
    tail = printable(failure.log_tail).rstrip().splitlines()[-max(1, min(_TAIL_LINES, place)) :]
    if tail:
        lines.append("  the end of its log:")
        lines += [style.paint(f"  | {line}".rstrip(), "dim") for line in tail]
    if failure.log:
        lines.append(f"  log: {failure.log}")
    if event.action:
        lines.append(f"  to run it alone: llmbuild exec {event.action[:16]}")
    return "\n".join(lines)


def checked_text(event: Checked, style: Style) -> str:
    """A task that ran again: that its bytes are the same, or which files differ."""
    files = "1 file" if event.files == 1 else f"{event.files} files"
    if not event.differences:
        return f"{style.paint('same  ', 'green')} {event.label}: {files}, byte for byte ({seconds(event.wall_s)})"
    lines = [f"{style.paint('differs', 'red')} {event.label}: the same inputs gave other bytes"]
    lines += [f"  {difference}" for difference in event.differences]
    lines.append(f"  to run it again: llmbuild exec {event.action[:16]}")
    return "\n".join(lines)
