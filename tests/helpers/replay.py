"""Replay the recorded build to the live view on this process's terminal: `python -m tests.helpers.replay NAME DIRECTORY`.

In the middle of the build it says so with a file `ready` in the directory, and goes on when there is a file `go`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from llmbuild.engine import events
from llmbuild.report.live import LiveView
from llmbuild.report.views import view_for
from tests.helpers import build_events


def main(name: str, directory: Path) -> None:
    build = getattr(build_events, name)
    view = view_for(sys.stderr)
    if isinstance(view, LiveView):
        # The clock stands in the middle of the build.
        view._now = lambda: build_events.BEGAN + 20
    started = 0
    for event in build:
        if isinstance(event, events.Summary):
            view.summary(event)
            continue
        view(event)
        started += isinstance(event, events.Started)
        if started == 3 and not (directory / "ready").exists():
            if note := os.environ.get("NOTE"):
                print(note, file=sys.stderr)
            view(
                events.TaskProgress(
                    time=build_events.BEGAN + 20, label=build_events.LOWER, done=12, total=30, unit="layers"
                )
            )
            sys.stderr.flush()
            (directory / "ready").touch()
            while not (directory / "go").exists():
                time.sleep(0.01)
    view.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
