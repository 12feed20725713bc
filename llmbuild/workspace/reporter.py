"""The events of a build, passed from the scheduler to the record and to the listener."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from llmbuild.engine import events
from llmbuild.errors import StoreError
from llmbuild.workspace.manifests import manifest_name
from llmbuild.workspace.place import owns_state, state_of

if TYPE_CHECKING:
    from llmbuild.workspace.recording import Recording
    from llmbuild.workspace.snapshot import Snapshot

OnEvent: TypeAlias = Callable[[events.Event], None]


class Reporter:
    """Receives the scheduler's events, copies the logs, and passes all events on, the summary last."""

    def __init__(self, snapshot: Snapshot, recording: Recording, on_event: OnEvent) -> None:
        self.ran = False
        self._snapshot = snapshot
        self._recording = recording
        self._on_event = on_event
        self._summary: events.Summary | None = None
        self._done: dict[str, bool] = {}
        """The tasks that were reported to have a result, and whether they ran."""

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.PlanMade() if self._summary is not None:
                # The build runs once more over tasks whose results were evicted before they were installed.
                return
            case events.CachedTask() if self._summary is not None and event.label in self._done:
                return
            case events.CachedTask():
                self._done[event.label] = False
            case events.PlanMade():
                event = dataclasses.replace(event, project=self._snapshot.whole.name)
            case events.Started():
                self.ran = True
            case events.Finished():
                self._done[event.label] = True
                trace = self._snapshot.store.traces.get(event.action)
                if trace is not None and trace.log is not None:
                    self._keep_log(event.label, self._snapshot.store.cas.blob_path(trace.log))
            case events.Failed() if event.failure.log is not None:
                self._failed(event, event.failure.log)
                return
            case events.Summary():
                if self._summary is not None:
                    ran = sum(self._done.values())
                    wall = round(self._summary.wall_s + event.wall_s, 6)
                    event = dataclasses.replace(event, ran=ran, cached=event.ran + event.cached - ran, wall_s=wall)
                self._summary = event
                # The outputs are not installed yet; the summary comes after them.
                return
        self.emit(event)

    def emit(self, event: events.Event) -> None:
        """Pass an event on."""
        self._recording.write(event)
        self._on_event(event)

    def finish(self) -> None:
        """Pass the summary on, last."""
        if self._summary is not None:
            self.emit(self._summary)

    def _failed(self, event: events.Failed, log: str) -> None:
        """Record the path of the log in the store; the listener gets that of the project's copy, where there is one."""
        self._recording.write(event)
        path = self._keep_log(event.label, Path(log))
        if path is not None:
            event = dataclasses.replace(event, failure=dataclasses.replace(event.failure, log=path))
        self._on_event(event)

    def _keep_log(self, label: str, source: Path) -> str | None:
        """Copy a task's log to the project's logs; returns the path as the user sees it."""
        from llmbuild.engine.files import write_atomic

        name = label.replace(", ", ",").replace("/", "_") + ".log"
        root = Path(self._snapshot.whole.root)
        path = state_of(root, manifest_name(self._snapshot.whole)) / "logs" / name
        if not owns_state(root, path.parent):
            return None
        try:
            write_atomic(path, source.read_bytes())
        except (OSError, StoreError):
            # The log is still in the store, and a full disk must not hide the failure that it reports.
            return None
        with contextlib.suppress(ValueError):
            return str(path.relative_to(Path.cwd()))
        return str(path)
