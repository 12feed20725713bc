"""The server's process: a signal that comes early."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

import pytest

from llmbuild.serving.app import Access, Service
from llmbuild.serving.server import bind, serve
from llmbuild.serving.worker import Worker


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_server_runs_stops_it(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run = asyncio.run

    def signalled(main: Coroutine[Any, Any, None]) -> None:
        signal.raise_signal(number)
        run(asyncio.wait_for(main, 60))

    monkeypatch.setattr(asyncio, "run", signalled)
    before = signal.getsignal(number)
    worker = Worker(1)
    service = Service({}, worker, Access(), log=print, crash=print)
    serve(service, worker, bind("127.0.0.1", 0), lambda: None)
    assert signal.getsignal(number) == before
