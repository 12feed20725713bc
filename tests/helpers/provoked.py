"""A pytest plugin for the errors which tests provoke: each LlmbuildError or TaskFailure that llmbuild makes.

A test that a golden file of tests/messages names fails where it does not provoke what stands there.  With
$LLMBUILD_PROVOKED the errors are written to that file instead, one JSON line for each, and tests whose messages differ
between machines, or with every change of the source, are left out.  Paths, ports, process ids, times and sizes of processes
are replaced by fixed ones, so that two runs say the same.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from llmbuild import errors
from llmbuild.engine.executor import TaskFailure
from tests.helpers.message_goldens import ANEW, Chosen, Message, golden_text, like, read_goldens

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "llmbuild"
RECORD = "LLMBUILD_PROVOKED"
_made: list[errors.LlmbuildError | TaskFailure] = []


def _recording(kind: type) -> None:
    """From now on each object of this kind is kept that llmbuild makes; a test may make some itself."""
    first = kind.__init__

    def record(self: Any, *args: Any, **kwargs: Any) -> None:
        first(self, *args, **kwargs)
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_name == "__init__" and frame.f_code.co_filename == errors.__file__:
            frame = frame.f_back
        if frame is not None and frame.f_code.co_filename.startswith(f"{PACKAGE}{os.sep}"):
            _made.append(self)

    kind.__init__ = record  # type: ignore[misc]


def pytest_configure() -> None:
    _recording(errors.LlmbuildError)
    _recording(TaskFailure)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if RECORD in os.environ:
        left_out = [item for item in items if not _repeatable(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _repeatable(item)]


def _repeatable(item: pytest.Item) -> bool:
    """Whether the test says the same everywhere.

    Hypothesis takes some of its examples from constants of the modules that are loaded, so they change with the source.  A
    test that is skipped without some tool shows that tool's words where it has any.
    """
    generated = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    return not generated and item.get_closest_marker("skipif") is None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    _made.clear()
    started = time.monotonic()
    yield
    seconds = time.monotonic() - started
    fixed = _Fixed(item)
    # What a caller adds to an error, such as its place, is there by now.
    said = [
        Message(*(fixed(getattr(error, part)) for part in ("what", "where", "why", "fix")))
        for error in _made
        if not isinstance(error, errors.MultiError)
    ]
    _made.clear()
    if out := os.environ.get(RECORD):
        lines = [json.dumps({"test": item.nodeid, "seconds": round(seconds, 2), **asdict(one)}) + "\n" for one in said]
        with Path(out).open("a", encoding="utf-8") as file:
            file.write("".join(lines))
    elif wanted := _goldens().get(item.nodeid):
        told = {one.rendered() for one in said}
        assert golden_text({item.nodeid: [like(one, told) for one in wanted]}) == golden_text({item.nodeid: wanted}), (
            ANEW
        )


@cache
def _goldens() -> Chosen:
    return read_goldens()


class _Fixed:
    """Replaces what is another one in each run."""

    def __init__(self, item: pytest.Item) -> None:
        base = str(item.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
        self._replaced = [
            (rf"{re.escape(base)}/(?:popen-gw\d+/)?[^/\s'`\":]+", "/project"),
            # The environment first: it may lie in the repository.
            (re.escape(sys.prefix), "/python"),
            (re.escape(str(ROOT)), "/llmbuild"),
            (r"\b(127\.0\.0\.1|localhost):\d{4,5}\b", r"\1:8000"),
            (r"\bprocess \d+\b", "process 4242"),
            # As many as other tests of the process had it start.
            (r"\bTVM runs with \d+ in this process\b", "TVM runs with 1 in this process"),
            (rf"{re.escape(tempfile.gettempdir())}/(?:tmp|nvcc-|rocm-)\w{{8}}\b", "/tmp/scratch"),
            (r"0x[0-9a-f]{12}", "0x7f0000000000"),
            (r"\bscratch/[\w-]+", "scratch/x"),
        ]
        if not item.nodeid.startswith("tests/messages/"):
            # Processes that really ran; those of tests/messages are made up.
            self._replaced += [(r"\bafter \d+\.\d s, with a peak of \d+ MiB\b", "after 0.5 s, with a peak of 64 MiB")]

    def __call__(self, text: str | None) -> str | None:
        if text is not None:
            for pattern, instead in self._replaced:
                text = re.sub(pattern, instead, text)
        return text
