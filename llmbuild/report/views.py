"""The view of a build that fits where it is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import IO

from llmbuild.canonical import Digest
from llmbuild.report.style import can_redraw, style_for
from llmbuild.report.terminal import View
from llmbuild.workflow import in_workflow


def view_for(stream: IO[str] | None = None, *, quiet: bool = False, log: Callable[[Digest], str] | None = None) -> View:
    """The view that fits the stream (standard error when none is given); `quiet` and `log` are those of View."""
    stream = stream or sys.stderr
    if can_redraw(stream) and not quiet:
        from llmbuild.report.live import LiveView

        return LiveView(stream, style_for(stream), log=log)
    # On a terminal lines are wrapped, and nobody but a person reads them.
    workflow = in_workflow() and not stream.isatty()
    return View(stream, style_for(stream), quiet=quiet, workflow=workflow, log=log)
