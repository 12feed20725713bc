"""What is being sent, as a row of a terminal and as lines elsewhere."""

from __future__ import annotations

import io
import re

import pytest

from llmbuild.report import publish_view
from llmbuild.report.publish_view import SendingView

NAME = "hf:org/smollm2-135m-instruct-q4f32_1-MLC"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_row_on_a_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    view = SendingView(stream, now=clock)
    view.begin(NAME, 200_000_000)
    assert f"0:00            {NAME} 0 B of 200.0 MB" in drawn(stream)
    clock.now += 10
    view.progress(NAME, 50_000_000, 200_000_000)
    view.end(NAME)
    row = [line.rstrip() for line in drawn(stream).splitlines() if "25%" in line][-1]
    assert row.startswith("0:10 ━━")
    assert row.endswith(f" {NAME[:37]}… 25%, 5.0 MB/s, 30 s left")
    size = len(stream.getvalue())
    view.close()
    assert len(stream.getvalue()) == size


def drawn(stream: Terminal) -> str:
    """All that was drawn, without the terminal's control sequences."""
    return re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", stream.getvalue()).replace("\r", "\n")


@pytest.mark.parametrize("dumb", [False, True])
def test_a_line_a_minute_elsewhere(clock: Clock, monkeypatch: pytest.MonkeyPatch, dumb: bool) -> None:
    monkeypatch.setenv("TERM", "dumb")
    beats: list[publish_view.Heartbeat] = []

    class Still(publish_view.Heartbeat):
        def started(self, label: str, since: float) -> None:
            beats.append(self)
            self._since[label] = since

    monkeypatch.setattr(publish_view, "Heartbeat", Still)
    stream = Terminal() if dumb else io.StringIO()
    view = SendingView(stream, now=clock)
    view.begin(NAME, 200_000_000)
    view.progress(NAME, 50_000_000, 200_000_000)
    assert beats[0].line() == ""
    clock.now += 61
    assert beats[0].line() == f"{NAME} for 1 min 1 s (since 00:16:40 UTC, 50.0 MB of 200.0 MB)"
    beats[0]._say(beats[0].line())
    view.close()
    assert beats[0].line() == ""
    assert stream.getvalue().startswith(f"still  {NAME} for 1 min 1 s")
