"""The events of a build on disk: `.llmbuild/last-build.ndjson`, which `report` reads, and the file of --events.

While a build runs its events grow in a file beside the last build's, which they replace when it ends, so that a reader
finds one whole build.  A build that is killed leaves that file; it then counts as the last build, without an end.  What
needs no work has no such file: its few events are written at once, at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from llmbuild.engine import fs
from llmbuild.errors import StoreError
from llmbuild.jsontext import parse_json
from llmbuild.report.event_fields import checked_event
from llmbuild.workspace.place import MANIFEST, owns_state, state_of
from llmbuild.workspace.replacing import EVENTS, require_replaceable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from llmbuild.engine.events import Event

LAST_BUILD = "last-build.ndjson"
_RUNNING = "last-build-{pid}.partial.ndjson"
_QUIET = frozenset({"PlanMade", "CachedTask"})
"""Events of a build that had nothing to run so far."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Recording:
    """Writes events as JSON lines while a build runs; use it as a context manager.

    Raises UsageError where the --events file would replace something else than events, and StoreError when it cannot be
    opened or written.  A project directory that cannot be written
    costs the record of the last build and nothing else.
    """

    def __init__(self, root: Path, also: Path | None = None, manifest: str = MANIFEST) -> None:
        self.last = state_of(root, manifest) / LAST_BUILD
        self._path = self.last.with_name(_RUNNING.format(pid=os.getpid()))
        self._also = also
        self._waiting: list[str] = []
        self._file: IO[str] | None = None
        self._stream: IO[str] | None = None
        self._own = owns_state(root, self.last.parent)
        self._broken = not self._own

    def __enter__(self) -> Recording:
        if self._also is not None:
            require_replaceable(self._also, EVENTS)
            try:
                self._stream = self._also.open("w", encoding="utf-8", buffering=1)
            except OSError as error:
                raise _unwritable(self._also, error) from error
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._write_waiting()
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.close()
                self._path.replace(self.last)
        for path in _partial(self.last.parent) if self._own else ():
            # What earlier builds left when they were killed; this one ended after them.
            with contextlib.suppress(OSError):
                path.unlink()
        if self._stream is not None:
            try:
                self._stream.close()
            except OSError as error:
                # The exception under way matters more than the loss of its events.
                if _error is None:
                    raise _unwritable(self._also, error) from error

    def write(self, event: Event) -> None:
        """Take an event; it is on its way to the disk when this returns, unless nothing has to run so far."""
        line = _encode(event.to_json()) + "\n"
        if self._stream is not None:
            try:
                self._stream.write(line)
            except OSError as error:
                raise _unwritable(self._also, error) from error
        self._waiting.append(line)
        if self._file is not None or type(event).__name__ not in _QUIET:
            self._write_waiting()

    def _write_waiting(self) -> None:
        if self._broken or not self._waiting:
            return
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                # A name with our own process's number may be there before us, and may be a link.
                self._path.unlink(missing_ok=True)
                self._file = self._path.open("x", encoding="utf-8", buffering=1)
            self._file.write("".join(self._waiting))
        except OSError:
            self._broken = True
        self._waiting.clear()


def _unwritable(path: Path | None, error: OSError) -> StoreError:
    return fs.store_error(error, "write the events", str(path), "name another file")


def last_build(root: Path, manifest: str = MANIFEST) -> Path | None:
    """The events of a manifest's last build: the newest of the last one that ended and those that were killed since."""
    directory = state_of(root, manifest)
    found = [path for path in (directory / LAST_BUILD, *_partial(directory)) if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def is_building(root: Path, manifest: str = MANIFEST) -> bool:
    """Whether a build of a manifest runs that has had something to do so far."""
    return any(map(_alive, state_of(root, manifest).glob(_RUNNING.format(pid="*"))))


def _partial(directory: Path) -> Sequence[Path]:
    """The records of builds that were killed; those of builds that still run are left out."""
    return [path for path in sorted(directory.glob(_RUNNING.format(pid="*"))) if not _alive(path)]


def _alive(partial: Path) -> bool:
    """Whether the process runs that the name of a partial record has."""
    try:
        os.kill(int(partial.name.split("-")[2].partition(".")[0]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:
        return True
    return True


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events in a file.  A last line that was cut off by a crash is left out.  Raises StoreError."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise StoreError("the events cannot be read", where=str(path), why=error.strerror or str(error)) from error
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            value = parse_json(line.encode())
        except ValueError as error:
            if number == len(lines):
                break
            raise StoreError("is not a file of events", where=f"{path}:{number}", why=str(error)) from error
        try:
            events.append(checked_event(value))
        except ValueError as error:
            raise StoreError("is not a file of events", where=f"{path}:{number}", why=str(error)) from error
    return events
