"""A build as lines of text, rendered from events alone; on a terminal `live` adds rows that show what runs.

Each start and end is a line, starts for the same reason share one.  Cached tasks print nothing unless that is asked for: only
their number is reported, and they count in the `[3/17]` of the tasks that have ended.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import IO

from llmbuild.canonical import Digest
from llmbuild.engine import events
from llmbuild.engine.executor import TaskFailure
from llmbuild.report.build_lines import checked_text, failure_text, log_lines, message_of, removed_texts, summary_text
from llmbuild.report.events import Checked, Installed
from llmbuild.report.github import failure_commands
from llmbuild.report.heartbeat import Heartbeat
from llmbuild.report.overview import Overview
from llmbuild.report.starts import Starts
from llmbuild.report.style import Style
from llmbuild.report.units import amount, seconds, size
from llmbuild.report.wrapping import wrap

_PAINTED = re.compile(r"(\x1b\[\d+m)(.*?)(\x1b\[0m)")


class View:
    """Prints a build's events as lines.  `quiet` leaves only failures and the summary.  With `log`, which returns the log of an
    action, every task has lines of its own: its start, its log when it ends, and that it was cached.

    Where lines cannot be redrawn, a line a minute reports what still runs.  `workflow` adds what GitHub Actions reads.
    """

    def __init__(
        self,
        stream: IO[str],
        style: Style,
        *,
        quiet: bool = False,
        workflow: bool = False,
        log: Callable[[Digest], str] | None = None,
    ) -> None:
        self.style = style
        self.overview = Overview()
        self._starts = Starts(fold=log is None)
        self._log = log
        self._workflow = workflow
        self._printing = threading.Lock()
        self._heartbeat = Heartbeat(lambda text: self.line(f"{self._word('still', 'cyan')} {self._counted(text)}"))
        self._stream = stream
        self._quiet = quiet
        self._failures: dict[TaskFailure, list[str]] = {}
        """The labels of failed tasks by what failed; the first one's message was printed."""
        self._said: set[str] = set()
        self._outputs: tuple[str, ...] = ()
        self._written = self._restored = 0
        self._noted: set[str] = set()

    def __call__(self, event: events.Event) -> None:
        self.overview.take(event)
        self._starts.take(event)
        match event:
            case events.Started():
                self.started(event)
            case events.TaskProgress():
                self.progress(event)
            case events.Finished():
                self.ended(event.label)
                self.line(self._finished(event))
                self._notes(event)
                self._show_log(event.action)
            case events.CachedTask() if event.source in ("process", "remote"):
                self.ended(event.label)
                whence = "another process built it" if event.remote is None else f"from {event.remote}"
                self.line(f"{self._word('taken', 'green')} {self._counted(event.label)}: {whence}")
                self._notes(event)
            case events.CachedTask() if self._log is not None:
                self.line(f"{self._word('cached', 'dim')} {self._counted(event.label)}")
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
        log = "" if self._log is None or event.action is None else self._log(event.action)
        self.line(failure_text(event, self.style, self._said, log), always=True)
        if self._workflow:
            self._print("\n".join(failure_commands(event)))

    def _show_log(self, action: Digest) -> None:
        if self._log is not None and (lines := log_lines(self._log(action), self.style)):
            self.line("\n".join(lines))

    def _installed(self, event: Installed) -> None:
        self._outputs = event.outputs
        self._written, self._restored = len(event.written), len(event.restored)
        for text in removed_texts(event.removed):
            self.line(f"{self._word('remove', 'yellow')} {text}")
        for path in event.kept:
            self.line(f"{self._word('keep', 'yellow')} {path}: nothing makes it any more, but it was edited")

    def started(self, event: events.Started) -> None:
        """Print why a task starts, unless a line about many said it."""
        if text := self._starts.started(event.label):
            self.line(f"{self._word('run', 'yellow')} {text}")
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
        self.line(summary_text(summary, self._written, self._restored, self.style), always=True)
        if summary.ran and not summary.failed and not summary.interrupted:
            for path in self._outputs:
                self.line(f"  {path}", always=True)

    def _finished(self, event: events.Finished) -> str:
        facts = [seconds(event.wall_s), size(event.output_size)]
        if event.peak_rss >= 256 << 20:
            facts.append(f"peak {size(event.peak_rss)} of memory")
        return f"{self._word('done', 'green')} {self._counted(event.label)} in {', '.join(facts)}"

    def _counted(self, text: str) -> str:
        """A text after the number of tasks that have ended and of all: `[3/17] lower[…]`."""
        return f"{self.overview.count} {text}".lstrip()

    def _word(self, word: str, style: str) -> str:
        return self.style.paint(f"{word:<6}", style)


def wrapped(text: str, width: int) -> str:
    """The lines of a text, those that are too long broken between words; only a painted head keeps its colour."""
    lines: list[str] = []
    for line in text.split("\n"):
        plain = _PAINTED.sub(r"\2", line)
        if len(plain) <= width:
            lines.append(line)
            continue
        parts = wrap(plain, width, later=" " * 7)
        head = _PAINTED.match(line)
        if head is not None and parts[0].startswith(head[2]):
            parts[0] = head[0] + parts[0][len(head[2]) :]
        lines += parts
    return "\n".join(lines)
