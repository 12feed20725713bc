"""Another cache beside the store: results are taken from it before a task runs, and given to it afterwards.

A result is taken whole into the store, under its action's lock, and counts only when the store finds it there as if it had been
made here.  Nothing from the cache is used before it is verified: records are parsed as those of the store are, and match the
requested action; bytes have the expected digest and size.  Only that the result is what its action would have given rests on
the word of those who write to the cache.

A cache that fails, or returns wrong data, is reported once in a build, and costs no more than the time to detect it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from llmbuild.canonical import Digest, digest_json
from llmbuild.engine.intake import take_blob
from llmbuild.engine.lookup import Cached, cached
from llmbuild.engine.records import MOST_RECORD
from llmbuild.engine.store import Store
from llmbuild.engine.trace import Trace
from llmbuild.engine.tree import Tree
from llmbuild.engine.warning import warn
from llmbuild.errors import LlmbuildError, StoreError
from llmbuild.sources.copying import free_space

if TYPE_CHECKING:
    from llmbuild.engine.remote import Remote

_FAILURES = 3
"""How often a cache may fail before a build leaves it alone.  One that gives wrong bytes at least answers."""

_MOST_LOG = 64 << 20
_POLL_S = 0.05

_T = TypeVar("_T")


class _FailedError(Exception):
    """The cache failed a request."""


class _AbsentError(_FailedError):
    """The cache does not have it."""


class _WrongError(Exception):
    """The cache returned wrong data."""


class Sharing:
    """One other cache during a build.  `name` is shown to people; the cache is opened when a task first needs it.  `refuse`
    returns why an action cannot have an output, where that is known.

    Uploads run in a thread of their own, so that tasks need not wait for them.
    """

    def __init__(
        self,
        name: str,
        opener: Callable[[], Remote],
        *,
        write: bool = True,
        refuse: Callable[[Digest, Tree], str | None] = lambda _action, _tree: None,
    ) -> None:
        self.name = name
        self._opener = opener
        self._refuse = refuse
        self._write = write
        self._lock = threading.Lock()
        self._remote: Remote | None = None
        self._failures = 0
        self._told = False
        self._wrong: set[Digest] = set()
        self._gifts: queue.SimpleQueue[tuple[Store, Cached] | None] = queue.SimpleQueue()
        self._giver: threading.Thread | None = None
        self._stopped = False

    # Taking.

    def take(self, store: Store, action: Digest, going_on: Callable[[], None]) -> Cached | None:
        """The action's result, now in the store; None where the cache does not have it whole and right.

        The caller holds the action's lock.  `going_on` is called between pieces, and may raise.  Raises StoreError when the
        store cannot be written.
        """
        try:
            remote = self._open()
            trace = self._trace(remote, action)
            self._output(remote, store, trace, going_on)
            if trace.log is not None:
                with contextlib.suppress(_AbsentError):
                    self._blob(remote, store, trace.log, going_on, most=_MOST_LOG)
        except _AbsentError:
            return None
        except (_FailedError, _WrongError) as error:
            self._tell(error)
            return None
        store.traces.put(trace)
        return cached(store, action)

    def _trace(self, remote: Remote, action: Digest) -> Trace:
        record = self._ask(remote.results.get, action)
        if record is None:
            raise _AbsentError
        data = self._ask(lambda: bytes(memoryview(record)))
        if len(data) > MOST_RECORD:
            raise _WrongError(f"the record of action {action[:12]} has {len(data)} bytes")
        try:
            trace = Trace.from_bytes(data)
        except ValueError as error:
            raise _WrongError(f"the record of action {action[:12]} is damaged: {error}") from error
        if trace.action != action or digest_json(trace.key) != action:
            raise _WrongError(f"the record of action {action[:12]} is of another action")
        return trace

    def _output(self, remote: Remote, store: Store, trace: Trace, going_on: Callable[[], None]) -> None:
        self._blob(remote, store, trace.output, going_on, most=MOST_RECORD)
        try:
            tree = store.cas.get_tree(trace.output)
        except StoreError as error:
            raise _WrongError(f"the output of action {trace.action[:12]} is damaged: {error.why}") from error
        if why := self._refuse(trace.action, tree):
            raise _WrongError(f"the output of action {trace.action[:12]} is refused: {why}")
        lacking = store.cas.missing(tree)
        size, space = sum(entry.size for entry in lacking), free_space(store.scratch(), reserve=True)
        if size > space:
            raise _WrongError(
                f"the output of action {trace.action[:12]} has {size} bytes, more than the disk has place for"
            )
        for entry in lacking:
            self._blob(remote, store, entry.digest, going_on, size=entry.size)

    def _blob(
        self,
        remote: Remote,
        store: Store,
        digest: Digest,
        going_on: Callable[[], None],
        *,
        size: int | None = None,
        most: int = 0,
    ) -> None:
        """Bring a blob into the store, unless it is there."""
        if store.cas.has(digest, size):
            return
        try:
            take_blob(store, digest, self._pieces(remote, digest, going_on), size=size, most=most)
        except ValueError as error:
            with self._lock:
                self._wrong.add(digest)
            raise _WrongError(str(error)) from error

    def _pieces(self, remote: Remote, digest: Digest, going_on: Callable[[], None]) -> Iterator[memoryview]:
        pieces = self._ask(lambda: iter(remote.blobs.get(digest)))
        while (piece := self._ask(next, pieces, None)) is not None:
            going_on()
            view = self._ask(lambda piece=piece: memoryview(piece).cast("B"))
            if not view:
                # A cache that returned empty pieces without end would never be detected.
                raise _FailedError("it gave an empty piece")
            yield view

    # Giving.

    def give(self, store: Store, found: Cached) -> None:
        """Upload a result that was made here to the cache, some time before `finish` returns."""
        if not self._write or self._stopped:
            return
        self._gifts.put((store, found))
        with self._lock:
            if self._giver is None:
                self._giver = threading.Thread(target=self._give_all, name="llmbuild sharing", daemon=True)
                self._giver.start()

    def finish(self, going_on: Callable[[], bool]) -> None:
        """Wait until all uploads have ended, or `going_on` returns False."""
        if self._giver is None:
            return
        self._gifts.put(None)
        while self._giver.is_alive():
            if not going_on():
                self.stop()
                return
            self._giver.join(_POLL_S)
        self._giver = None

    def stop(self) -> None:
        """Start no more uploads.  Nobody waits for the one under way, which ends as it may."""
        self._stopped = True

    def _give_all(self) -> None:
        while (gift := self._gifts.get()) is not None and not self._stopped:
            try:
                self._give(*gift)
            except _FailedError as error:
                self._tell(error)
            except StoreError:
                # It is not in the store, or the disk fails: whoever needs it here reports that.
                continue

    def _give(self, store: Store, found: Cached) -> None:
        """Upload the blobs before the result: whoever finds the result finds them all."""
        try:
            remote = self._open()
        except _AbsentError:
            return
        trace = found.trace
        digests = [*dict.fromkeys(entry.digest for entry in found.tree.files), trace.output]
        if trace.log is not None and store.cas.has(trace.log):
            digests.append(trace.log)
        missing = self._ask(lambda: set(remote.blobs.missing(digests))) | self._wrong
        # A result of which a file was left where its owner has it is nothing for others.
        paths = [(digest, store.cas.path(digest)) for digest in digests if digest in missing]
        for digest, path in paths:
            self._ask(remote.blobs.put, digest, path)
            if self._stopped:
                return
        self._ask(remote.results.put, trace.action, trace.to_bytes())

    # The cache.

    def _open(self) -> Remote:
        """The open cache.  Raises _AbsentError once it has failed too often."""
        with self._lock:
            if self._failures >= _FAILURES:
                raise _AbsentError
            if self._remote is None:
                try:
                    self._remote = self._ask(self._opener)
                except _AbsentError as error:
                    raise _FailedError(str(error)) from error
            return self._remote

    @staticmethod
    def _ask(call: Callable[..., _T], *args: object) -> _T:
        """Call the cache.  Its module is not the engine's, and the service behind it is not llmbuild's: both may fail in any
        way."""
        try:
            return call(*args)
        except LlmbuildError as error:
            raise _FailedError(": ".join(part for part in (error.where, error.what, error.why) if part)) from error
        except Exception as error:
            kind = _AbsentError if isinstance(error, FileNotFoundError) else _FailedError
            raise kind(f"{type(error).__name__}: {error}") from error

    def _tell(self, error: Exception) -> None:
        failed = isinstance(error, _FailedError)
        with self._lock:
            self._failures += failed
            told, self._told = self._told or self._stopped, True
        if not told:
            what = "the other cache cannot be used" if failed else "the other cache has something wrong"
            why = (str(error).splitlines() or [""])[0]
            warn(StoreError(what, where=self.name, why=why), "the build goes on without it")
