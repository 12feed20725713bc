"""Running many wrong inputs: each ends as the documentation says, soon, in bounded memory, and outside nothing changes.

Each case has a seed of its own, which names it: LLMBUILD_FUZZ="records:17" runs that one alone, with its traceback.
"""

from __future__ import annotations

import io
import os
import random
import resource
import shutil
import signal
import stat
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import pytest

from llmbuild.cli.main import main
from llmbuild.errors import ExitCode, LlmbuildError

MOST_SECONDS = 5
MOST_GROWTH = 400 << 20
"""Bytes by which the process may grow in one case."""
CODES = frozenset(code.value for code in ExitCode) - {ExitCode.INTERNAL, ExitCode.INTERRUPTED}


class Fault(Exception):
    """What must not happen."""


class Area(Protocol):
    """One kind of input.  `outside` is what no case may change, but for what lies below `inside`."""

    outside: Path
    inside: tuple[Path, ...]

    def case(self, generator: random.Random) -> None:
        """Make one wrong input and give it to llmbuild.  Raises LlmbuildError, or what is a fault."""

    def reset(self) -> None:
        """Make things as they were before the case."""


def run(name: str, area: Area, first: int, count: int) -> None:
    """Run the cases of an area; raises AssertionError with the seeds and tracebacks of a few different faults."""
    only = os.environ.get("LLMBUILD_FUZZ", "")
    if only and only.partition(":")[0] != name:
        pytest.skip(f"only {only} is asked for")
    numbers = [int(only.partition(":")[2])] if only else range(first, first + count)
    faults: dict[str, str] = {}
    refused = 0
    before = fingerprint(area.outside, area.inside)
    for number in numbers:
        seed = f"{name}:{number}"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.monotonic()
        try:
            with _no_hang():
                area.case(random.Random(seed))
        except LlmbuildError as error:
            refused += 1
            if error.exit_code == ExitCode.INTERNAL:
                faults.setdefault(*_described(seed, error))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            faults.setdefault(*_described(seed, error))
        if time.monotonic() - started > MOST_SECONDS:
            faults.setdefault("hang", f"{seed}: it took {time.monotonic() - started:.1f} s")
        if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown) << 10 > MOST_GROWTH:
            faults.setdefault("memory", f"{seed}: it took more than {MOST_GROWTH >> 20} MiB")
        after = fingerprint(area.outside, area.inside)
        if after != before:
            changed = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
            faults.setdefault(f"outside {changed[0]}", f"{seed}: outside of store and project changed: {changed}")
            before = after
        area.reset()
        if len(faults) >= 8:
            break
    print(f"{name}: {len(numbers)} cases, {refused} refused")
    # Where all is refused at the door, nothing behind it was tried.
    assert len(numbers) < 100 or refused < 0.97 * len(numbers)
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults.values())


def _described(seed: str, error: BaseException) -> tuple[str, str]:
    """Where and what it is, which tells faults apart, and all of it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/llmbuild/" in frame.filename]
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    text = "".join(traceback.format_exception(error))
    return f"{type(error).__name__} {place}", f"--- {seed}\n{text[-3000:]}"


@contextmanager
def _no_hang() -> Iterator[None]:
    def late(_signal: int, _frame: FrameType | None) -> None:
        raise Fault(f"it takes more than {MOST_SECONDS} s")

    old = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def fingerprint(root: Path, without: tuple[Path, ...]) -> dict[str, tuple[Any, ...]]:
    """Everything below a directory, as far as its stat tells: names, kinds, sizes, times, targets of links."""
    found: dict[str, tuple[Any, ...]] = {}
    left, skipped = [str(root)], {str(path) for path in without}
    while left:
        directory = left.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.path in skipped:
                    continue
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    left.append(entry.path)
                    found[entry.path] = (status.st_mode,)
                else:
                    found[entry.path] = (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns)
    return found


class Keeper:
    """The state of a directory, and a way back to it that touches only what changed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._content: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
        self._directories: set[str] = set()
        for path in sorted(root.rglob("*")):
            if path.is_dir():
                self._directories.add(str(path))
            else:
                status = path.stat()
                times = (status.st_atime_ns, status.st_mtime_ns)
                self._content[str(path)] = (stat.S_IMODE(status.st_mode), path.read_bytes(), times)
        self._seen = fingerprint(root, ())

    def restore(self) -> None:
        if not self._root.is_dir() or self._root.is_symlink():
            self._root.unlink(missing_ok=True)
            self._root.mkdir()
        now = fingerprint(self._root, ())
        if now == self._seen:
            return
        for name in sorted(now, reverse=True):
            path = Path(name)
            wrong = name not in self._directories if stat.S_ISDIR(now[name][0]) else now[name] != self._seen.get(name)
            if wrong and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif wrong:
                path.unlink(missing_ok=True)
        for name in sorted(self._directories):
            Path(name).mkdir(exist_ok=True)
        for name, (mode, data, times) in self._content.items():
            path = Path(name)
            if not path.exists():
                path.write_bytes(data)
                path.chmod(mode)
                os.utime(path, ns=times)
        self._seen = fingerprint(self._root, ())


def command(*arguments: str, environ: Mapping[str, str | None] | None = None) -> tuple[int, str]:
    """Run `llmbuild` in this process and return its exit code and what it printed.

    Raises Fault for an exit code that is not documented and for control characters, and the error itself for one that
    nobody expected.
    """
    out, err = io.BytesIO(), io.BytesIO()
    bugs: list[BaseException] = []

    def crashed(error: BaseException) -> str:
        bugs.append(error)
        return "a log"

    with pytest.MonkeyPatch.context() as patch:
        for name, value in (environ or {}).items():
            patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
        patch.setattr("llmbuild.cli.common.write_crash_log", crashed)
        # A variable for each: a stream that nobody has any more closes what is below it.
        stdout = io.TextIOWrapper(out, encoding="utf-8", write_through=True)
        stderr = io.TextIOWrapper(err, encoding="utf-8", errors="backslashreplace", write_through=True)
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        code = main(arguments)
    text = out.getvalue().decode() + err.getvalue().decode()
    if bugs:
        raise bugs[0]
    if code not in CODES:
        raise Fault(f"{arguments} ended with {code}: {text}")
    if marks := {mark for mark in text if (mark < " " and mark != "\n") or "\x7f" <= mark < "\xa0"}:
        raise Fault(f"{arguments} printed control characters {marks}: {text!r}")
    return code, text
