"""The server's process: packages that are missing, and a signal that comes early."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Coroutine
from typing import Any

import pytest

from llmbuild.errors import ExitCode
from llmbuild.serving.app import Access, Service
from llmbuild.serving.server import bind, serve
from llmbuild.serving.worker import Worker


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_package_that_is_missing_is_said_with_its_extra(package: str) -> None:
    # To Python a module that is None is not there.
    code = f"import sys; sys.modules['{package}'] = None; from llmbuild.cli.main import main; sys.exit(main(['serve']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.TOOLCHAIN
    assert f"the Python package {package} is not installed" in done.stderr
    assert "pip install 'llmbuild[serve]'" in done.stderr


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
