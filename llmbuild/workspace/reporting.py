"""The report on a build, from its recorded events."""

from __future__ import annotations

from pathlib import Path

from llmbuild.errors import UsageError
from llmbuild.report.build_report import BuildReport, build_report
from llmbuild.workspace.recording import last_build, read_events


def last_report(root: Path, manifest: str) -> BuildReport:
    """The report on the last build of a manifest, by its directory and file name.  Raises UsageError where there was none,
    and StoreError where its events cannot be read."""
    path = last_build(root, manifest)
    if path is None:
        raise UsageError("there is no build to report on yet", fix="run `llmbuild build`, which records its events")
    return build_report(read_events(path))


def report_of(events: Path) -> BuildReport:
    """The report on the build whose events are in this file.  Raises UsageError where there is none, and StoreError."""
    if not events.is_file():
        raise UsageError(f"there is no file {events}", fix="`llmbuild build --events FILE` writes one")
    return build_report(read_events(events))
