"""What is printed when tasks start: a line each, or one for all that wait for the same reason."""

from __future__ import annotations

from llmbuild.engine import events
from llmbuild.engine.labels import split_label
from llmbuild.report.events import Explained
from llmbuild.report.plan_text import MANY, reasons_line


class Starts:
    """The tasks that were queued, by what they are and why they run.  `fold` says whether many of them share a line."""

    def __init__(self, *, fold: bool = True) -> None:
        self._fold = fold
        self._waiting: dict[str, tuple[str, str]] = {}
        """The kind and the reasons of each task that no line has named yet."""
        self._named: set[str] = set()

    def take(self, event: events.Event) -> None:
        """Take what happens to tasks before they start, and that some have a result without a start."""
        match event:
            case Explained():
                self._named.discard(event.label)
                self._waiting[event.label] = split_label(event.label)[0], reasons_line(event.reasons)
            case events.Finished() | events.CachedTask() | events.Failed():
                self._waiting.pop(event.label, None)

    def started(self, label: str) -> str:
        """The line about a task that starts; empty where an earlier line was about it too."""
        if label in self._named:
            return ""
        kind, reasons = self._waiting.pop(label, ("", ""))
        same = [other for other, why in self._waiting.items() if why == (kind, reasons)] if self._fold else []
        named = label
        if len(same) + 1 >= MANY:
            named = f"{len(same) + 1} x {kind}"
            self._named.update(same)
            for other in same:
                del self._waiting[other]
        return f"{named}: {reasons}" if reasons else named
