"""The index over traces: what ran for which task, and how long each kind takes.

A diskcache of JSON values, made from the trace files and rebuilt from them whenever it is lost or damaged; it decides nothing
that the trace files could not decide more slowly.  A null build never opens it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from llmbuild.canonical import Digest, parse_digest
from llmbuild.engine import files, records
from llmbuild.engine.trace import Trace, TraceStore
from llmbuild.engine.warning import warn
from llmbuild.errors import StoreError

_Result = TypeVar("_Result")

_RECENT = 256
"""How many runs of a kind are kept together for estimates."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run, as far as estimates need it; units as in Trace."""

    action: Digest
    kind: str
    label: str
    project: str
    output_size: int
    wall_s: float
    cpu_s: float
    peak_rss: int
    finished: float
    input_size: int

    @staticmethod
    def of(trace: Trace) -> RunSummary:
        return RunSummary(
            trace.action,
            trace.kind,
            trace.label,
            trace.project,
            trace.output_size,
            trace.wall_s,
            trace.cpu_s,
            trace.peak_rss,
            trace.finished,
            trace.input_size,
        )

    @staticmethod
    def parse(row: object) -> RunSummary:
        """The inverse of `to_json`; raises ValueError."""
        if not isinstance(row, list) or len(row) != len(RunSummary.__slots__):
            raise ValueError("a row of the index is none of a run")
        action, kind, label, project, output_size, wall_s, cpu_s, peak_rss, finished, input_size = row
        return RunSummary(
            parse_digest(action),
            records.text(kind, "the kind"),
            records.text(label, "the label"),
            records.text(project, "the project"),
            records.count(output_size, "the size of the output"),
            records.seconds(wall_s, "the wall time"),
            records.seconds(cpu_s, "the processor time"),
            records.count(peak_rss, "the peak of memory"),
            records.seconds(finished, "the time of its end"),
            records.count(input_size, "the size of the inputs"),
        )

    def to_json(self) -> list[str | int | float]:
        return [getattr(self, name) for name in self.__slots__]


class TraceIndex:
    """The index of one store.  Where it can neither be used nor rebuilt, a warning reports it, and lookups find nothing."""

    def __init__(self, root: Path, traces: TraceStore) -> None:
        self._root = root
        self._traces = traces
        self._reconciled = False

    def add(self, traces: Iterable[Trace]) -> None:
        """Add new traces."""
        new = list(traces)

        def work(cache: Any) -> None:
            with cache.transact():
                self._insert(cache, new)
            # Only now is the index compared with the files: what was just taken in need not be read from there.
            self._check_once(cache)

        self._with_cache(work, None, check=False)

    def last(self, project: str, label: str) -> RunSummary | None:
        """The latest run for a task of a project."""

        def work(cache: Any) -> RunSummary | None:
            action = cache.get(f"last:{project}:{label}")
            row = cache.get(f"run:{action}") if action else None
            return RunSummary.parse(row) if row else None

        return self._with_cache(work, None)

    def latest(self, project: str) -> dict[str, Digest]:
        """The action of the latest run for each label of a project."""
        prefix = f"last:{project}:"

        def work(cache: Any) -> dict[str, Digest]:
            names = [key for key in cache.iterkeys() if isinstance(key, str) and key.startswith(prefix)]
            return {name[len(prefix) :]: parse_digest(cache.get(name)) for name in names}

        return self._with_cache(work, {})

    def runs(self, kind: str) -> list[RunSummary]:
        """All known runs of a kind, oldest first."""

        def work(cache: Any) -> list[RunSummary]:
            rows = [cache.get(key) for key in cache.iterkeys() if isinstance(key, str) and key.startswith("run:")]
            found = [RunSummary.parse(row) for row in rows if row]
            return sorted((run for run in found if run.kind == kind), key=lambda run: (run.finished, run.action))

        return self._with_cache(work, [])

    def recent(self, kind: str) -> list[RunSummary]:
        """The latest runs of a kind, oldest first: enough for an estimate, in one look."""

        def work(cache: Any) -> list[RunSummary]:
            return [RunSummary.parse(row) for row in cache.get(f"recent:{kind}") or ()]

        return self._with_cache(work, [])

    @staticmethod
    def _insert(cache: Any, traces: Iterable[Trace]) -> None:
        recent: dict[str, dict[Digest, RunSummary]] = {}
        for trace in traces:
            run = RunSummary.of(trace)
            cache.set(f"run:{run.action}", run.to_json())
            name = f"last:{run.project}:{run.label}"
            previous = cache.get(name)
            row = cache.get(f"run:{previous}") if previous else None
            if row is None or RunSummary.parse(row).finished <= run.finished:
                cache.set(name, run.action)
            if run.kind not in recent:
                rows = cache.get(f"recent:{run.kind}") or ()
                recent[run.kind] = {one.action: one for one in (RunSummary.parse(row) for row in rows)}
            recent[run.kind][run.action] = run
        for kind, runs in recent.items():
            latest = sorted(runs.values(), key=lambda run: (run.finished, run.action))[-_RECENT:]
            cache.set(f"recent:{kind}", [run.to_json() for run in latest])

    def _reconcile(self, cache: Any) -> None:
        """Take in the traces of builds that were killed before they could, and forget those whose file is gone."""
        on_disk = set(self._traces.names())
        known = {key[4:] for key in cache.iterkeys() if isinstance(key, str) and key.startswith("run:")}
        if on_disk == known:
            return
        with cache.transact():
            for name in known - on_disk:
                cache.delete(f"run:{name}")
            fresh = [trace for name in sorted(on_disk - known) if (trace := self._traces.get(name)) is not None]
            self._insert(cache, sorted(fresh, key=lambda one: one.finished))

    def _check_once(self, cache: Any) -> None:
        if not self._reconciled:
            self._reconcile(cache)
            self._reconciled = True

    def _with_cache(self, work: Callable[[Any], _Result], otherwise: _Result, *, check: bool = True) -> _Result:
        for attempt in range(2):
            try:
                with self._open() as cache:
                    if check:
                        self._check_once(cache)
                    return work(cache)
            except (sqlite3.Error, OSError, ValueError, TypeError, KeyError, EOFError) as error:
                # Whatever is wrong with the index, the traces can replace it; only a disk that fails cannot be helped.
                if attempt == 1 or (isinstance(error, sqlite3.OperationalError) and "locked" in str(error)):
                    failure = StoreError("cannot use the index of the cache", where=str(self._root), why=str(error))
                    warn(failure, "estimates and some reasons are missing")
                    return otherwise
                with contextlib.suppress(OSError):
                    files.remove_tree(self._root, self._root.parent)
                self._reconciled = False
        raise AssertionError("unreachable")

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import diskcache

        # SQLite writes to what a link of its file's name leads to.
        if any(one.is_symlink() or not (one.is_file() or one.is_dir()) for one in self._root.rglob("*")):
            raise ValueError("something else than its files lies there")
        try:
            cache = diskcache.Cache(
                str(self._root),
                disk=diskcache.JSONDisk,
                eviction_policy="none",
                cull_limit=0,
                size_limit=2**62,
                timeout=60,
            )
        except AttributeError as error:
            # It takes the names and values of its settings as they are in the file.
            raise ValueError(f"its settings are damaged: {error}") from error
        try:
            yield cache
        finally:
            cache.close()
