"""A line a minute about what still runs, on a clock of the test's own."""

from __future__ import annotations

import io
import threading

import pytest

from llmbuild.engine import events
from llmbuild.report import heartbeat
from llmbuild.report.heartbeat import Heartbeat
from llmbuild.report.live import LiveView
from llmbuild.report.style import Style
from llmbuild.report.terminal import View


class Clock:
    """Time that passes only by waiting; after so many waits the end comes."""

    def __init__(self, now: float, waits: int) -> None:
        self.now, self.waits = now, waits
        self.at: dict[float, object] = {}

    def __call__(self) -> float:
        return self.now

    def wait(self, span: float) -> bool:
        assert span == heartbeat.EVERY
        self.now += span
        self.waits -= 1
        what = self.at.pop(self.now, None)
        if callable(what):
            what()
        return self.waits < 0


NOON = 12 * 3600.0


def test_a_line_a_minute_tells_what_runs_and_since_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _self: None)
    said: list[str] = []
    clock = Clock(NOON, 5)
    beat = Heartbeat(said.append, now=clock, wait=clock.wait)
    beat.started("lower[m]", NOON)
    beat.started("link[m]", NOON + 30)
    clock.at = {
        NOON + 120: lambda: beat.progress("lower[m]", "3 of 30 layers"),
        NOON + 180: lambda: beat.ended("link[m]"),
        NOON + 240: lambda: beat.ended("lower[m]"),
    }
    beat.beat()
    assert said == [
        "lower[m] for 1 min 0 s (since 12:00:00 UTC)",
        "lower[m] for 2 min 0 s (since 12:00:00 UTC, 3 of 30 layers); link[m] for 1 min 30 s (since 12:00:30 UTC)",
        "lower[m] for 3 min 0 s (since 12:00:00 UTC, 3 of 30 layers)",
    ]


def test_a_stream_that_is_gone_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _self: None)

    def say(_line: str) -> None:
        raise BrokenPipeError

    clock = Clock(NOON, 5)
    beat = Heartbeat(say, now=clock, wait=clock.wait)
    beat.started("lower[m]", NOON)
    beat.beat()
    assert clock.waits == 4


@pytest.mark.parametrize(("quiet", "live"), [(False, False), (True, False), (False, True)])
def test_a_build_has_one_where_lines_cannot_be_redrawn(
    monkeypatch: pytest.MonkeyPatch, quiet: bool, live: bool
) -> None:
    monkeypatch.setattr(heartbeat, "EVERY", 0.01)
    stream = Signalling()
    view = LiveView(stream, Style(80)) if live else View(stream, Style(80), quiet=quiet)
    view(events.Started(time=NOON, label="lower[m]", action="0" * 64))
    view(events.TaskProgress(time=NOON, label="lower[m]", done=3, total=30, unit="layers"))
    if quiet or live:
        assert not stream.said.wait(0.1)
    else:
        assert stream.said.wait(30)
        assert "still  lower[m] for " in stream.getvalue()
    view.close()


class Signalling(io.StringIO):
    """Tells when a heartbeat was written."""

    def __init__(self) -> None:
        super().__init__()
        self.said = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if text.startswith("still"):
            self.said.set()
        return written
