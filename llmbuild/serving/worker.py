"""Answers are computed one after another, in the order in which they were requested, in one thread.

A model on a CPU uses every core for one answer, so that two at once would take longer for both.  The event loop stays free:
it takes requests, passes the pieces on, and notices who has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from llmbuild.runtime.completer import TurnStatistics
from llmbuild.serving.errors import RequestError

Pieces = Callable[[Callable[[], bool]], Iterator[str]]
"""Makes the pieces of an answer, which ends once the function that it is given returns true."""


class Answer:
    """An answer that waits for its turn or is being computed.  Only the thread of its event loop may use it."""

    def __init__(self, statistics: Callable[[], TurnStatistics]) -> None:
        self.statistics: TurnStatistics | None = None
        self._read_statistics = statistics
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[str | TurnStatistics | BaseException] = asyncio.Queue()
        self._cancelled = threading.Event()
        self._future: Future[None] | None = None

    def cancel(self) -> None:
        """End the answer: at once where it waits, else at the next token.  It is then read to its end without more of it."""
        self._cancelled.set()
        if self._future is not None and self._future.cancel():
            self._events.put_nowait(TurnStatistics(finish="cancelled"))

    async def pieces(self) -> AsyncIterator[str]:
        """The pieces as they come; afterwards `statistics` is there.  Raises what the computation raises."""
        while True:
            match await self._events.get():
                case str(piece):
                    yield piece
                case TurnStatistics() as statistics:
                    self.statistics = statistics
                    return
                case error:
                    raise error

    def start(self, executor: ThreadPoolExecutor, pieces: Pieces) -> Future[None]:
        """Enter the queue of the executor."""
        self._future = executor.submit(self._compute, pieces)
        return self._future

    def _compute(self, pieces: Pieces) -> None:
        """Compute the answer, in the executor's thread."""
        try:
            for piece in pieces(self._cancelled.is_set):
                self._tell(piece)
        except BaseException as error:
            self._tell(error)
        else:
            # Of this answer, as no other begins before this one has ended.
            self._tell(self._read_statistics())

    def _tell(self, event: str | TurnStatistics | BaseException) -> None:
        # A loop that has ended has nobody who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


class Worker:
    """The thread and its queue; `most_waiting` requests may wait besides the one that is being answered.

    A request has a place in the queue from `place` on, while its prompt is read, and after `begin` until its answer ends.
    """

    def __init__(self, most_waiting: int) -> None:
        self._executor = ThreadPoolExecutor(1, "llmbuild-answers")
        self._most = most_waiting
        self._answers: set[Answer] = set()
        self._read = 0

    @property
    def waiting(self) -> int:
        """The requests that wait for their turn."""
        return max(0, len(self._answers) + self._read - 1)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Have a place in the queue while a request is read.  Raises RequestError where the queue is full."""
        if len(self._answers) + self._read > self._most:
            raise RequestError(
                f"{self.waiting} requests wait already: try again later", code="server_overloaded", status=503
            )
        self._read += 1
        try:
            yield
        finally:
            self._read -= 1

    def begin(self, pieces: Pieces, statistics: Callable[[], TurnStatistics]) -> Answer:
        """Put an answer into the queue, within `place`."""
        answer = Answer(statistics)
        self._answers.add(answer)
        loop = asyncio.get_running_loop()

        def ended(_future: Future[None]) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._answers.discard, answer)

        answer.start(self._executor, pieces).add_done_callback(ended)
        return answer

    def close(self) -> None:
        """Cancel what is left and wait for the thread."""
        for answer in tuple(self._answers):
            answer.cancel()
        self._executor.shutdown()
