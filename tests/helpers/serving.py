"""`llmbuild serve` as a process on a free port, and its application in a thread with a model whose steps a test allows."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmbuild.runtime.completer import TurnStatistics
from llmbuild.serving.worker import Worker

ROOT = Path(__file__).parent.parent.parent
MESSAGES = [{"role": "user", "content": "the hat"}]


@dataclass
class Process:
    """A server; `lines` are those of its standard error so far."""

    popen: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    _grown: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        (url,) = re.findall(r" at (http://\S+)/v1;", self.wait_for(" at http"))
        return str(url)

    def client(self, key: str = "none", **options: Any) -> Any:
        import openai

        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120, **options)

    def wait_for(self, text: str, after: int = 0) -> str:
        """The first line from number `after` on that contains a text, as soon as it is there."""
        with self._grown:
            found = self._grown.wait_for(
                lambda: next((line for line in self.lines[after:] if text in line), None) or self.popen.poll(), 120
            )
        assert isinstance(found, str), self.lines
        return found

    def read(self) -> None:
        """Collect the lines, in a thread of its own."""
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            with self._grown:
                self.lines.append(line.rstrip("\n"))
                self._grown.notify_all()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(60)


@contextlib.contextmanager
def served(directory: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Process]:
    """A server that is stopped at the end, with exit code 0 and no traceback, unless the test has stopped it."""
    environment = {**os.environ, "NO_COLOR": "1", "TVM_BIND_THREADS": "0", "PYTHONPATH": str(ROOT), **(env or {})}
    command = [sys.executable, "-m", "llmbuild", "serve", "--port", "0", "--threads", "1", *arguments]
    popen = subprocess.Popen(command, cwd=directory, env=environment, stderr=subprocess.PIPE, text=True)
    process = Process(popen)
    reader = threading.Thread(target=process.read)
    reader.start()
    try:
        yield process
        assert popen.poll() is not None or process.stop() == 0, process.lines
    finally:
        popen.kill()
        popen.wait()
        reader.join()
    assert not [line for line in process.lines if "Traceback" in line or "internal error" in line], process.lines


def until(condition: Callable[[], object]) -> None:
    """Return as soon as the condition holds, which another thread makes true."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.005)


class Stepped:
    """A model whose answer is "a", "b", "c" and so on, each piece after a `step`; what `Served` needs of a model."""

    def __init__(self) -> None:
        from llmbuild.conversation.templates import resolve_template

        self.config = {"conv_template": resolve_template("chatml", ROOT), "temperature": 1.0}
        self.context = 100
        self.vocab_size = 256
        self.statistics = TurnStatistics()
        self.steps = threading.Semaphore(0)
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.failing = False

    def render(self, turns: Sequence[tuple[str, str | None]], system: str | None = None) -> list[int]:
        self.asked.append(str(turns[-2][1]))
        return self.tokens(f"{system}{turns}")

    def tokens(self, text: str) -> list[int]:
        return list(text.encode())[:90]

    def complete(
        self, ids: Sequence[int], *_: Any, max_tokens: int, cancelled: Callable[[], bool], **__: Any
    ) -> Iterator[str]:
        self.statistics = statistics = TurnStatistics(prompt_tokens=len(ids), finish="length")
        for number in range(max_tokens):
            assert self.steps.acquire(timeout=60)
            if self.failing:
                raise RuntimeError("secret words of a failure")
            if cancelled():
                statistics.finish = "cancelled"
                break
            statistics.answer_tokens += 1
            yield chr(ord("a") + number % 26)
        self.ended.append(statistics.finish)


@dataclass
class InThread:
    """An application that runs in a thread of this process."""

    url: str
    model: Stepped
    worker: Worker
    log: list[str]
    crashes: list[BaseException]

    def client(self) -> Any:
        import openai

        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)


@contextlib.contextmanager
def in_thread(most_waiting: int = 4, origins: Sequence[str] = ()) -> Iterator[InThread]:
    from typing import cast

    import uvicorn

    from llmbuild.serving.app import Access, Service
    from llmbuild.serving.served import Served
    from llmbuild.serving.server import address_of, bind

    model = Stepped()
    log: list[str] = []
    crashes: list[BaseException] = []
    worker = Worker(most_waiting)
    models = {"stepped": Served("stepped", cast(Any, model), created=1)}
    service = Service(models, worker, Access(origins=origins), log=log.append, crash=crashes.append)
    bound = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(service, lifespan="off", log_config=None, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    until(lambda: server.started)
    try:
        yield InThread(address_of(bound), model, worker, log, crashes)
    finally:
        server.should_exit = True
        for _ in range(1000):
            model.steps.release()
        thread.join()
        worker.close()
