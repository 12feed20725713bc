"""Output of a step of a GitHub Actions workflow beside the messages for people (workflow.py has the commands)."""

from __future__ import annotations

from pathlib import Path

from llmbuild.engine import events
from llmbuild.errors import LlmbuildError, MultiError
from llmbuild.printable import printable
from llmbuild.workflow import annotation, group

_MOST_LOG = 256 << 10
"""How many bytes at the end of a log a group has."""


def error_commands(error: LlmbuildError) -> list[str]:
    """An annotation for each error."""
    errors = error.errors if isinstance(error, MultiError) else (error,)
    return [annotation("error", one.what, where=one.where, why=one.why, fix=one.fix) for one in errors]


def failure_commands(event: events.Failed) -> list[str]:
    """The annotation of a failed task, and its log in a group: the log's file is lost with the machine of the job."""
    error = event.failure.to_error()
    before = f"{event.label} failed: "
    command = annotation("error", error.what, where=error.where, why=error.why, fix=error.fix, before=before)
    lines = _log(event.failure.log, event.failure.log_tail)
    return [command, group(f"log of {event.label}", lines)] if lines else [command]


def _log(path: str | None, tail: str) -> list[str]:
    text = tail
    if path is not None:
        try:
            with Path(path).open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _MOST_LOG))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            # The event still has the end of the log.
            text = tail
    return printable(text).rstrip().splitlines()
