"""The threads of a build: each takes an action, waits for its lock, has it run, and reports the outcome."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from llmbuild.canonical import Digest
from llmbuild.engine import events
from llmbuild.engine.executor import Executor, TaskFailure
from llmbuild.engine.locks import Owner
from llmbuild.engine.lookup import Cached, cached
from llmbuild.engine.store import Store
from llmbuild.errors import Interrupted, LlmbuildError

if TYPE_CHECKING:
    from llmbuild.engine.sharing import Sharing

_LOCK_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Done:
    """The last message about an action: the result and where it was made (here, by another process, or wherever the other
    cache has it from), or the failure."""

    digest: Digest
    found: Cached | None = None
    source: Literal["here", "process", "remote"] = "here"
    failure: TaskFailure | None = None
    crash: BaseException | None = None


_Job: TypeAlias = tuple[str, Digest, bool]


class Runner:
    """Runs actions, each in a thread while it runs.  `say` receives events and the last messages, from any thread.  What
    `sharing` has is taken from there.

    Threads are started when there is no idle one and kept until `join`: a thread for each task would cost more than
    everything else that is done for a small one.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        say: Callable[[events.Event | Done], None],
        sharing: Sharing | None = None,
    ) -> None:
        self._store = store
        self._executor = executor
        self._sharing = sharing
        self._say = say
        self._cancelled = threading.Event()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._going = 0

    def start(self, label: str, digest: Digest, must_run: bool) -> None:
        """Have an action run; its `Done` follows.  `must_run`: whatever its trace says."""
        self._going += 1
        self._jobs.put((label, digest, must_run))
        if self._going > len(self._threads):
            thread = threading.Thread(target=self._work, name=f"llmbuild {len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def ended(self) -> None:
        """Called when a `Done` was taken: its thread is free for another action."""
        self._going -= 1

    def cancel(self) -> None:
        """Let nothing that waits for a lock start any more."""
        self._cancelled.set()

    def join(self) -> None:
        """Wait until all threads have ended."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            digest = job[1]
            try:
                self._say(self._locked_run(*job))
            except LlmbuildError as error:
                self._say(Done(digest, failure=TaskFailure.of(error)))
            except BaseException as error:
                self._say(Done(digest, crash=error))

    def _locked_run(self, label: str, digest: Digest, must_run: bool) -> Done:
        waited = False

        def poll(owner: Owner | None) -> None:
            nonlocal waited
            if not waited:
                waited = True
                self._say(
                    events.WaitingForLock(
                        time=time.time(),
                        label=label,
                        action=digest,
                        owner_pid=owner.pid if owner else None,
                        owner_label=owner.label if owner else None,
                    )
                )
            if self._cancelled.wait(_LOCK_POLL_S):
                raise Interrupted("the build was interrupted")

        with self._store.hold(digest, label, poll=poll):
            # Another process may have run it between our look at the traces and our lock.
            if (waited or not must_run) and (found := cached(self._store, digest)) is not None:
                return Done(digest, found, source="process")
            self._require_going_on()
            if self._sharing is not None and not must_run:
                taken = self._sharing.take(self._store, digest, self._require_going_on)
                if taken is not None:
                    return Done(digest, taken, source="remote")
            self._say(events.Started(time=time.time(), label=label, action=digest))

            def progress(done: int, total: int, unit: str = "") -> None:
                self._say(events.TaskProgress(time=time.time(), label=label, done=done, total=total, unit=unit))

            end = self._executor.run(digest, progress)
            if isinstance(end, TaskFailure):
                return Done(digest, failure=end)
            found = end if end is not None else cached(self._store, digest)
            if found is None:
                return Done(digest, failure=TaskFailure("the output vanished from the cache right after it was built"))
            if self._sharing is not None:
                self._sharing.give(self._store, found)
            return Done(digest, found)

    def _require_going_on(self) -> None:
        if self._cancelled.is_set():
            raise Interrupted("the build was interrupted")
