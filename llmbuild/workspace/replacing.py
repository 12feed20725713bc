"""A file that a command line names as output replaces only a file that such a command wrote before."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from llmbuild.errors import StoreError, UsageError

EVENTS = "a file of events"
PAGE = "a build report"
ARCHIVE = "an archive of `llmbuild cache export`"
SCHEMA = "a schema of the manifest"

_BEGINS = {
    EVENTS: re.compile(rb'\{"v":\d+,"type":"'),
    PAGE: re.compile(rb"<!DOCTYPE html>\n.{0,400}: build report</title>", re.DOTALL),
    ARCHIVE: re.compile(rb"llmbuild-cache\0"),
    SCHEMA: re.compile(rb'\{\s*"\$schema": "[^"]{0,200}",\s*"\$id": "urn:llmbuild:manifest"'),
}
_START = 1024


def require_file(path: Path) -> None:
    """Raise UsageError for a device, a pipe or a socket: a file that is written whole and then renamed would replace
    it, `/dev/null` included."""
    try:
        mode = path.stat().st_mode
    except OSError:
        # The write reports what is wrong with it.
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UsageError("this is no file, and would be replaced by one", where=str(path), fix="name a file")


def require_directory(path: Path) -> None:
    """Raise UsageError where the directory that a file is to be written into is missing: a name that is misspelt makes none."""
    directory = path.absolute().parent
    if not directory.is_dir():
        raise UsageError(f"there is no directory {directory}", fix="make it first")


def require_replaceable(path: Path, kind: str) -> None:
    """Raise UsageError when a file has content that is not of the kind that would replace it, or its directory is missing."""
    require_directory(path)
    try:
        if not path.is_file() or path.stat().st_size == 0:
            return
        with path.open("rb") as file:
            start = file.read(_START)
    except OSError as error:
        raise StoreError(
            "cannot look at a file to replace", where=str(path), why=error.strerror or str(error)
        ) from error
    if _BEGINS[kind].match(start) is None:
        raise UsageError(
            f"the file is not {kind}, and would be overwritten",
            where=str(path),
            fix="name another file, or remove this one",
        )
